"""Asks a server through the SDK of OpenAI, and checks what comes: `check_clients.py ADDRESS`."""

import base64
import json
import sys
from pathlib import Path

import openai

PICTURES = Path(__file__).resolve().parent.parent / "examples" / "pictures"


def url(name):
    encoded = base64.b64encode((PICTURES / name).read_bytes()).decode()
    return f"data:image/png;base64,{encoded}"


def shown(name):
    """Makes the part of a message that shows a picture."""
    return {"type": "image_url", "image_url": {"url": url(name)}}


def seen(name):
    """Makes the part of an input that shows a picture."""
    return {"type": "input_image", "image_url": url(name), "detail": "auto"}


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def check_responses(client, schema):
    asked = {"model": "multiway:caption", "input": user(seen("turtle.png"))}
    response = client.responses.create(**asked, store=False)
    assert response.output_text == "turtle" and response.status == "completed", response
    assert response.usage.total_tokens > 0 and response.usage.output_tokens_details.reasoning_tokens == 0, response

    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "turtle" and events[-1].type == "response.completed", events
    assert events[-1].response.output_text == text, events
    # The SDK puts the response together from its events.
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == "turtle"

    form = {"type": "json_schema", "name": "seen", "schema": schema}
    response = client.responses.create(**asked, text={"format": form})
    assert json.loads(response.output_text)["animal"] in ("turtle", "horse"), response

    response = client.responses.create(model="multiway", instructions="a", input="cat", max_output_tokens=1)
    assert response.status in ("completed", "incomplete"), response
    try:
        client.responses.create(**asked, previous_response_id="resp_1")
    except openai.BadRequestError as told:
        assert told.body["param"] == "previous_response_id", told
    else:
        raise AssertionError("a response that is not kept was continued")


def check_decisions(client):
    asked = {"model": "multiway", "input": user(seen("red-circle.png"))}
    colors = [{"value": "blue"}, {"value": "red", "description": "the color of blood"}]
    decision = client.decisions.create(
        **asked,
        questions=[
            {"type": "choice", "name": "color", "instructions": "what color is the circle?", "choices": colors},
            {"type": "predicate", "instructions": "is it a circle?"},
            {"type": "score", "instructions": "how large?", "levels": [{"label": "small"}, {"label": "large"}]},
        ],
    )
    color, circle, size = decision.answers
    assert color.name == "color" and color.choice in ("blue", "red"), decision
    assert abs(sum(one.probability for one in color.probabilities) - 1) < 1e-9, decision
    assert circle.type == "predicate" and 0 <= circle.probability <= 1, decision
    assert 0 <= size.score <= 1 and size.probabilities[1].label == "large", decision
    assert decision.usage.input_tokens > 0, decision

    plain = [{"value": value} for value in ("blue", "red", "green")]
    question = {"type": "choice", "instructions": "what color is the circle?", "choices": plain}
    for model in ("multiway", "multiway:closed-vqa"):
        decision = client.decisions.create(model=model, input=asked["input"], questions=[question])
        assert decision.answers[0].choice == "red", decision
    try:
        client.decisions.create(**asked, questions=[{**question, "choices": plain[:1]}])
    except openai.BadRequestError as told:
        assert told.body["param"] == "questions[0].choices", told
    else:
        raise AssertionError("a question with one answer was answered")


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

    check_responses(client, schema)
    check_decisions(client)

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
