"""The items of check_harnesses.sh: a task for lm-eval, and a chain of LangChain; check_inspect.py has that for inspect-ai."""

import base64
import json
import os
import sys
from pathlib import Path

GAPS = ["The ___ sat.", "___ is red.", "A cat and a ___.", "All human ___ are born free.", "the ___ of law"]


def examples(folder):
    """Ten pictures with the captions that are right for them."""
    lines = (Path(folder) / "answers.jsonl").read_text().splitlines()
    captions = [line for line in map(json.loads, lines) if line["task"] == "caption"]
    return [(Path(folder) / line["images"][0], line["answers"]) for line in captions[:10]]


def data_url(path):
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def files():
    """Writes the ten items and the task of lm-eval into the working folder."""
    items = [{"text": text, "answer": "beings"} for text in GAPS * 2]
    Path("ten.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "ten",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path("ten.jsonl").resolve())}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16},
        "metric_list": [{"metric": "exact_match"}],
    }
    # JSON is YAML.
    Path("ten.yaml").write_text(json.dumps(task))


def langchain(folder):
    """Captions ten pictures, streams one caption, and embeds a text."""
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    place = {"base_url": os.environ["MULTIWAY_BASE_URL"], "api_key": os.environ["MULTIWAY_API_KEY"]}
    chat = ChatOpenAI(model="multiway:caption", **place)
    messages = [
        [HumanMessage(content=[{"type": "image_url", "image_url": {"url": data_url(picture)}}])]
        for picture, _ in examples(folder)
    ]
    answers = chat.batch(messages)
    assert len(answers) == 10 and all(answer.content for answer in answers), answers
    assert all(answer.usage_metadata["output_tokens"] > 0 for answer in answers), answers
    pieces = [piece.content for piece in chat.stream(messages[0])]
    assert "".join(pieces) == answers[0].content, pieces
    # The lengths of texts would be counted by another tokenizer.
    embeddings = OpenAIEmbeddings(model="multiway", check_embedding_ctx_length=False, **place)
    assert len(embeddings.embed_query("a cat")) == 256
    print("langchain:", len(answers), "captions, a stream and a vector")


if __name__ == "__main__":
    {"files": lambda *_: files(), "langchain": langchain}[sys.argv[1]](*sys.argv[2:])
