"""Ten captions as a task for inspect-ai, for check_harnesses.sh."""

from check_harnesses import examples
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, ContentImage
from inspect_ai.scorer import match
from inspect_ai.solver import generate


@task
def captions(pictures: str) -> Task:
    """Pictures of a folder, each to be called by one of the names that are written beside it."""
    samples = [
        Sample(input=[ChatMessageUser(content=[ContentImage(image=str(picture))])], target=answers)
        for picture, answers in examples(pictures)
    ]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=match(location="exact"))
