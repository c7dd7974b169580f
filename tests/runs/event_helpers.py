"""What TensorBoard shows of a folder of event files."""

import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxrl_reason.runs.metrics_log import read_metrics


def records(path):
    """The complete records of an event file, as TensorBoard reads them."""
    data = path.read_bytes()
    while len(data) >= 12:
        (size,) = struct.unpack("<Q", data[:8])
        if len(data) < 16 + size:
            break
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


def scalars(folder):
    """Step -> name -> value; a START drops what was there from its step on."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in records(path):
            if event.session_log.status == SessionLog.START:
                found = {step: x for step, x in found.items() if step < event.step}
            for value in event.summary.value:
                row = found.setdefault(event.step, {})
                assert value.tag not in row
                row[value.tag] = value.simple_value
    return found


def as_rows(path):
    """The same of a file of metrics, whose numbers TensorBoard has in float32."""
    rows = read_metrics(path)
    return {
        int(row["step"]): {
            name: struct.unpack("f", struct.pack("f", x))[0]
            for name, x in row.items()
            if name != "step"
        }
        for row in rows
    }
