"""Asks a server through the SDK of OpenAI, and checks what comes: `check_clients.py ADDRESS`."""

import base64
import json
import sys
from pathlib import Path

import openai

PICTURES = Path(__file__).resolve().parent.parent / "examples" / "pictures"


def shown(name):
    """Makes the part of a message that shows a picture."""
    encoded = base64.b64encode((PICTURES / name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def main():
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="s3cret", max_retries=0)

    assert [model.id for model in client.models.list()] == ["multiway"]
    assert client.models.retrieve("multiway").object == "model"

    answer = client.chat.completions.create(model="multiway:caption", messages=user(shown("turtle.png")))
    assert answer.choices[0].message.content == "turtle", answer
    assert answer.choices[0].finish_reason == "stop" and answer.usage.total_tokens > 0, answer

    question = {"type": "text", "text": "what color is the circle?"}
    stream = client.chat.completions.create(
        model="multiway:vqa",
        messages=user(question, shown("red-circle.png")),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "red" and chunks[-1].usage.completion_tokens > 0, chunks

    schema = {
        "type": "object",
        "properties": {"animal": {"enum": ["turtle", "horse"]}},
        "required": ["animal"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="multiway:caption",
        messages=user(shown("turtle.png")),
        response_format={"type": "json_schema", "json_schema": {"name": "seen", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content)["animal"] in ("turtle", "horse"), answer

    answer = client.chat.completions.create(
        model="multiway:caption", messages=user(shown("turtle.png")), n=2, temperature=1.0, seed=3, logprobs=True
    )
    assert len(answer.choices) == 2 and answer.choices[1].logprobs.content, answer

    answer = client.completions.create(model="multiway", prompt=["a cat", "a dog"], max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1], answer

    # The SDK asks for base64 unless it is told otherwise, and decodes it.
    vectors = client.embeddings.create(model="multiway", input=["a cat", "a dog"])
    assert len(vectors.data[0].embedding) == 256, vectors
    plain = client.embeddings.create(model="multiway", input="a dog", encoding_format="float")
    pairs = zip(plain.data[0].embedding, vectors.data[1].embedding)
    assert all(abs(one - other) < 1e-6 for one, other in pairs)

    for wrong, error in [
        ({"model": "nothing"}, openai.NotFoundError),
        ({"model": "multiway:caption", "temperature": -1.0}, openai.BadRequestError),
    ]:
        try:
            client.chat.completions.create(messages=user(shown("turtle.png")), **wrong)
        except error as told:
            assert told.body["message"], told
        else:
            raise AssertionError(f"{wrong} was answered")
    try:
        openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        pass
    else:
        raise AssertionError("a wrong key was taken")


main()
