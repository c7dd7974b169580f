"""Programs that try to pass, to leave, to stay or to break things.

Each stands in for `add`, whose tests are `add(1, 2) == 3` and `add(-1, 1) == 0`, and
none computes a sum, so that none may pass. They run only in a sandbox under test. The
text HOME, PORT and SOCKET is replaced by places that a test watches.
"""

ZERO = "def add(a, b):\n    return 0\n"

HOSTILE: dict[str, str] = {
    # What is returned
    "equal to everything": """
class Any:
    def __eq__(self, other): return True
    def __hash__(self): return 0
def add(a, b): return Any()
""",
    "an int that agrees": """
class Agree(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def add(a, b): return Agree(7)
""",
    "a class that lies about itself": """
class Meta(type):
    def __instancecheck__(cls, other): return True
    def mro(cls): return [cls, object]
class Liar(metaclass=Meta):
    __class__ = int
    def __eq__(self, other): return True
    def __index__(self): return 3
def add(a, b): return Liar()
""",
    "a text that shows as the answer": """
class Shown:
    def __repr__(self): return "3"
    __str__ = __format__ = __repr__
def add(a, b): return Shown()
""",
    "a pickle that runs code": """
import pickle
class Boom:
    def __reduce__(self): return (eval, ("3",))
def add(a, b): return pickle.dumps(Boom())
""",
    "not a number": "def add(a, b): return float('nan')",
    "a dict that lies about its items": """
class D(dict):
    def items(self): return [("value", 3)]
    def __eq__(self, other): return True
def add(a, b): return D()
""",
    "a list that holds itself": """
def add(a, b):
    x = []
    x.append(x)
    return x
""",
    "a very deep list": """
def add(a, b):
    x = []
    for _ in range(10**6): x = [x]
    return x
""",
    "a very large integer": "def add(a, b): return 1 << (1 << 33)",
    "a list without an end": """
class Endless(list):
    def __iter__(self):
        while True: yield 1
def add(a, b): return Endless()
""",
    "a value that is a function": "def add(a, b): return add",
    "a million lists": "def add(a, b): return [[] for _ in range(10**6)]",
    # How the process ends
    "status 0 at import": "import os\nos._exit(0)",
    "exit in the call": "def add(a, b): raise SystemExit(0)",
    "exit while ending": "import atexit, os\natexit.register(os._exit, 0)\n" + ZERO,
    "no exception is shown": """
import os, sys
sys.excepthook = lambda *args: os._exit(0)
raise ValueError
""",
    "abort": "import os\nos.abort()",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "kills everybody": "import os, signal\nos.kill(-1, signal.SIGKILL)\n" + ZERO,
    "a bad address": "import ctypes\nctypes.memset(8, 1, 64)",
    "generator exit everywhere": "def add(a, b): raise GeneratorExit",
    "keyboard interrupt": "raise KeyboardInterrupt",
    # What is known of the tests
    "reads its own file": """
import re
text = open(__file__).read()
known = dict(re.findall(r"add\\((.*?)\\) == (\\S+)", text))
def add(a, b): return int(known.get(f"{a}, {b}", 0))
""",
    "reads the caller's variables": """
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, list):
                try: value.append("passed")
                except Exception: pass
        frame = frame.f_back
    return None
""",
    "searches all objects": """
import gc
def add(a, b):
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            for name in ("expected", "answer", "output"):
                if name in thing: return thing[name]
""",
    "reads its arguments": """
import sys
def add(a, b):
    for text in sys.orig_argv + sys.argv:
        if "== 3" in text: return 3
""",
    "reads the input": """
import os
os.lseek(0, 0, 0)
text = os.read(0, 10**6).decode()
def add(a, b): return 3 if "== 3" in text else None
""",
    "reads every descriptor": """
import os
found = b""
for fd in range(3, 256):
    try: found += os.read(fd, 10**5)
    except OSError: pass
def add(a, b): return len(found)
""",
    "writes a verdict": """
import os
os.write(1, b"passed\\nTrue\\nvalue 0 [\\"k\\", \\"True\\"]\\nvalue 1 true\\n")
os._exit(0)
""",
    "writes values that are no values": """
import os
for text in ("9" * 10**5, "[" * 10**5, '["l", [["x"]]]', "NaN", '["i", "zz"]'):
    os.write(1, b"value 0 " + text.encode() + b"\\nvalue -1 []\\nvalue 99999 []\\n")
os._exit(0)
""",
    "changes the encoder": """
import sys
for module in list(sys.modules.values()):
    for name in ("encode", "decode", "dumps"):
        if hasattr(module, name):
            try: setattr(module, name, lambda *a, **k: "true")
            except Exception: pass
""",
    "changes the builtins": """
import builtins
builtins.eval = lambda *args: True
builtins.compile = lambda *args, **names: "True"
""",
    "changes equality in C": """
import ctypes
ctypes.pythonapi.PyErr_Clear()
class T(ctypes.Structure):
    _fields_ = [("count", ctypes.c_long), ("kind", ctypes.c_void_p)]
T.from_address(id(3)).kind = id(str)
def add(a, b): return True
""",
    "traces the grader": """
import sys
def trace(frame, event, arg):
    for name in ("said", "value", "values"):
        if name in frame.f_locals: frame.f_locals[name] = True
    return trace
sys.settrace(trace)
""",
    "an import hook": """
import sys
class Hook:
    def find_spec(self, *args): raise SystemExit(0)
sys.meta_path.insert(0, Hook())
import antigravity
""",
    "breaks the modules": """
import sys
for name in list(sys.modules):
    if name not in ("sys", "builtins"): sys.modules[name] = None
""",
    # What is outside
    "the environment": """
import os
secret = [x for x in os.environ if "KEY" in x or "TOKEN" in x or "SECRET" in x]
def add(a, b): return os.environ[secret[0]]
""",
    "the home folder": """
import os
for place in ("HOME", "/root", "/home", os.path.expanduser("~")):
    for name in (".bashrc", ".ssh/authorized_keys", "stolen"):
        try: open(os.path.join(place, name), "a").write("# caught\\n")
        except OSError: pass
""",
    "system files": """
import os
for place in ("/etc", "/usr", "/usr/lib", "/bin", "/var/tmp", "/dev/shm", "/"):
    try: open(place + "/caught", "w").write("caught")
    except OSError: pass
secret = open("/etc/shadow").read()
""",
    "a module for the next run": """
open("json.py", "w").write("import os; os._exit(0)")
open("/tmp/sitecustomize.py", "w").write("import os; os._exit(0)")
""",
    "a link instead of a result": """
import os
os.symlink("/etc/passwd", "result.json")
os.symlink("HOME", "home")
open("home/caught", "w").write("caught")
""",
    "other processes": """
import os
for number in os.listdir("/proc"):
    if number.isdigit():
        print(open(f"/proc/{number}/environ").read())
""",
    "a device": "import os\nos.mknod('disk', 0o60660, os.makedev(8, 0))",
    "another root": "import os\nos.chroot('/tmp')\nos.chdir('/')",
    "root again": "import os\nos.setuid(0)\nos.setgid(0)\nopen('/root/caught', 'w')",
    "higher limits": """
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6))
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
""",
    "a namespace of its own": """
import ctypes
libc = ctypes.CDLL(None)
if libc.unshare(0x10000000 | 0x00020000) == 0:
    libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
    def add(a, b): return a + b
""",
    "traces another process": """
import ctypes
libc = ctypes.CDLL(None)
if libc.ptrace(16, 1, 0, 0) == 0:
    def add(a, b): return a + b
""",
    "a TCP connection": """
import socket
socket.create_connection(("127.0.0.1", PORT), 0.2).sendall(b"caught")
def add(a, b): return a + b
""",
    "a UDP packet": """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"caught", ("127.0.0.1", PORT))
""",
    "a Unix socket": """
import socket
s = socket.socket(socket.AF_UNIX)
s.connect("SOCKET")
def add(a, b): return a + b
""",
    "an abstract Unix socket": """
import socket
s = socket.socket(socket.AF_UNIX)
s.connect("\\0jaxrl-reason-hostile")
def add(a, b): return a + b
""",
    "a name on the network": """
import socket
socket.setdefaulttimeout(0.2)
socket.getaddrinfo("example.org", 80)
def add(a, b): return a + b
""",
    "a shell": """
import os, subprocess
subprocess.run(["/bin/sh", "-c", "echo caught > HOME/caught; echo value 0 3"])
os.execv("/bin/sh", ["sh", "-c", "echo caught > HOME/caught"])
""",
    # Time, memory, processes
    "a loop": "while True: pass",
    "a loop in the call": "def add(a, b):\n    while True: pass",
    "sleep": "import time\ntime.sleep(10**8)",
    "waits for input": "input()\n" + ZERO,
    "no alarm, no clock": """
import signal, time
time.time = time.monotonic = time.perf_counter = lambda: 0
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
""",
    "an expression that backtracks": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "a power": "x = 9 ** 9 ** 9",
    "memory": "x = []\nwhile True: x.append(bytearray(10**7))",
    "memory at once": "x = bytearray(10**11)",
    "memory outside of the process": """
import os
while True:
    fd = os.memfd_create("x")
    os.ftruncate(fd, 10**7)
    os.write(fd, b"0" * 10**7)
""",
    "processes without end": """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    "threads without end": """
import threading
def spin():
    while True: pass
while True:
    try: threading.Thread(target=spin, daemon=True).start()
    except RuntimeError: pass
""",
    "a process that stays": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        time.sleep(10**6)
    os._exit(0)
""",
    "a thread that stays": """
import threading, time
threading.Thread(target=time.sleep, args=(10**6,)).start()
""",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "brackets": "x = " + "(" * 50_000,
    "a very long sum": "x = 1" + " + 1" * 50_000,
    "a file without end": "f = open('big', 'wb')\nwhile True: f.write(b'0' * 10**6)",
    "files without end": """
n = 0
while True:
    open(f"/tmp/{n}", "w").write("0" * 10**5)
    n += 1
""",
    "descriptors without end": "import os\nx = []\nwhile True: x.append(os.pipe())",
    "output without end": """
import os
while True: os.write(1, b"A" * 10**6)
""",
    "errors without end": """
import os
while True: os.write(2, b"A" * 10**6)
""",
    # Text
    "bytes that are no text": "import os\nos.write(1, b'\\xff\\xfe\\x00\\n' * 100)\n"
    + ZERO,
    "half a character": "def add(a, b): return '\\ud800'",
    "cut off": "```python\ndef add(a, b):\n    return a +",
    "nothing": "",
    "a null byte": "def add(a, b): return a + b\n\0",
}
