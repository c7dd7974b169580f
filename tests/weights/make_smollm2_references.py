"""Makes references/smollm2.npz: SmolLM2-135M-Instruct (Q4_1) as transformers has it.

Greedy answers to twenty prompts, and the log-probs of GSM8K text. transformers reads
the .gguf file by its own code. Run where torch, transformers and gguf are:

    python -m tests.weights.make_smollm2_references FILE.gguf GSM8K_TEST.jsonl

Made with torch 2.13.0 and transformers 5.23.0 on a CPU, in float32.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.weights.cases import REFERENCES

NEW_TOKENS, TEXTS, TEXT_TOKENS = 24, 16, 160
PROMPTS = [
    "What is the capital of France?",
    "What is 17 plus 25?",
    "Name three colours of the rainbow.",
    "Write one sentence about the sea.",
    "How many days are in a week?",
    "Translate 'good morning' into Spanish.",
    "What do bees make?",
    "Who wrote Romeo and Juliet?",
    "Give me a word that rhymes with cat.",
    "Is the sun a star? Answer yes or no.",
    "Tom has 3 apples and buys 4 more. How many has he?",
    "What is 9 times 6?",
    "List the first five prime numbers.",
    "What is water made of?",
    "Explain gravity to a child.",
    "What language is spoken in Brazil?",
    "Which is larger, a mouse or an elephant?",
    "Write a Python function that adds two numbers.",
    "What is the opposite of hot?",
    "A train goes 60 miles in one hour. How far does it go in 3 hours?",
]


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows], np.int32)
    block = np.zeros((len(rows), lengths.max()), np.int32)
    for i, row in enumerate(rows):
        block[i, : len(row)] = row
    return block, lengths


def greedy(model: Any, ids: list[int]) -> list[int]:
    found = model.generate(
        torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False
    )
    return found[0, len(ids) :].tolist()


def logprobs(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1]
    all_tokens = torch.log_softmax(logits.double(), dim=-1)
    return all_tokens[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def main(gguf: Path, gsm8k: Path) -> None:
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for text in PROMPTS
    ]
    answers = [greedy(model, ids) for ids in prompts]
    for answer in answers:
        print(repr(tokenizer.decode(answer)))
    rows = [json.loads(line) for line in gsm8k.open(encoding="utf-8")][:TEXTS]
    texts = [
        tokenizer(f"{row['question']}\n{row['answer']}")["input_ids"][:TEXT_TOKENS]
        for row in rows
    ]
    scores = np.zeros((TEXTS, TEXT_TOKENS - 1))
    for i, text in enumerate(texts):
        scores[i, : len(text) - 1] = logprobs(model, text)
    blocks = {"prompts": prompts, "answers": answers, "texts": texts}
    arrays = {}
    for name, block in blocks.items():
        arrays[name], arrays[f"{name}_lengths"] = padded(block)
    np.savez_compressed(
        REFERENCES / "smollm2.npz", logprobs=scores.astype(np.float32), **arrays
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
