"""Reasoning that stands inside of an agent's content, between think tags, taken apart from what was said after it."""

OPEN, CLOSE = "<think>", "</think>"


def split_reasoning(content: str, *, tags: tuple[str, str] = (OPEN, CLOSE)) -> tuple[str, str]:
    """What was thought, without its tags and the newlines around it, and what was said, without the newlines before it.

    The opening tag may be missing: templates that write it into the prompt leave it out of what the model wrote. Text before
    the opening tag, or a tag that is never closed, is no reasoning: then the content is returned as it is, after "".
    """
    opening, closing = tags
    before, opened, thought = content.partition(opening)
    if opened and before.strip():
        return "", content
    thought, closed, answer = (thought if opened else content).partition(closing)
    if not closed:
        return "", content
    return thought.strip("\n"), answer.lstrip("\n")
