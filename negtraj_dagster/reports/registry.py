"""A line's title as others read it: who holds it, who held it before, who was judged last, and every change that was made."""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import Built, Published, Store

REGISTRY_VERSION = 1
TITLE = ("recipe", "checkpoint", "accuracy", "verdict", "why")
"""What of the alias says who holds the title and why."""

Record = Mapping[str, Any]


class TitleMovedError(Exception):
    """Another machine has changed the title meanwhile."""


@dataclass(frozen=True)
class Registry:
    """The texts of `registry/<line>/`, each replaced in one step, shared by all machines of a store.

    `champion.json` is what counts; the others follow from it, and what a run that was killed left out the next one adds.
    """

    store: Store
    line: str

    def read(self, name: str) -> str | None:
        """The text of an alias (`champion`, `previous`, `challenger`, `anchor`), None where there is none."""
        return self.store.read_text(f"registry/{self.line}/{name}.json")

    def refused(self) -> list[str]:
        """Versions of the checkpoints that were rolled back, sorted: also where champion.json was deleted since."""
        alias = json.loads(self.read("champion") or "{}")
        return sorted({*alias.get("refused", []), *(version for row in self._log() for version in row.get("refused", []))})

    def held(self) -> list[str]:
        """Versions of the checkpoints that held the title before its present holder, sorted."""
        alias = json.loads(self.read("champion") or "null")
        if alias is None:
            return []
        return sorted({title["checkpoint"] for title in self._titles()} - {alias["checkpoint"]})

    def promote(self, content: Record, decision: Record, present: str | None) -> None:
        """Make a decision the title's; its holder may be who held it before.

        Args:
            content: of the champion's object: who holds the title now, and who was judged.
            decision: what made it, kept beside the title.
            present: the alias's text when the decision was begun.

        Raises:
            TitleMovedError: it is another one now.
        """
        if self.read("champion") != present:
            raise TitleMovedError
        earlier = json.loads(present) if present else None
        previous = earlier and (earlier.get("previous") if is_same(earlier, content) else only_title(earlier))
        challenger = content.get("challenger") or (earlier or {}).get("challenger")
        title = {**only_title(content), **decision, "challenger": challenger, "previous": previous}
        self._take_title(title, present)
        self.follow()

    def roll_back(self, why: str) -> Published:
        """Give the title back to who held it before; what is rolled back never holds it again.

        Raises:
            StoreError: nobody held it before, or that checkpoint is gone.
        """
        present = self.read("champion")
        if present is None:
            raise StoreError(f"{self.line}: no champion was named yet, so there is nothing to roll back")
        alias = json.loads(present)
        with self.store.lock(f"registry-{self.line}"):  # a gate may be at work for long, and give the title to another
            if self.read("champion") != present:
                raise StoreError(
                    f"{self.line}: the title moved while a gate was waited for, {_name(alias)} may not hold it any longer; "
                    "look who does, and roll back again if it is to be"
                )
            refused = {*self.refused(), alias["checkpoint"]}
            earlier = self._before(refused)
            if earlier is None:
                raise StoreError(
                    f"{self.line}: {_name(alias)} is the first champion, there is none before it; to have none at all delete "
                    f"{self.store.place(f'registry/{self.line}/champion.json')}"
                )
            if self.store.find(f"{earlier['recipe']}/checkpoint", earlier["checkpoint"]) is None:
                raise StoreError(f"{self.line}: {_name(earlier)}, which held the title before, is gone from {self.store.home}")
            title = {
                **earlier,
                "verdict": "rolled_back",
                "why": f"{_name(alias)} was rolled back: {why}",
                "decision": None,
                "incumbent": [alias["recipe"], alias["checkpoint"]],
                "anchor": alias.get("anchor"),
                "refused": sorted(refused),
                "challenger": alias.get("challenger"),
                "previous": self._before({*refused, earlier["checkpoint"]}),
            }
            self._take_title(title, present)
            self.follow()
            made_of = {"code": REGISTRY_VERSION, "rolled_back": alias["checkpoint"], "to": earlier["checkpoint"], "why": why}
            return self.store.build(f"champion/{self.line}", made_of, lambda _: Built(content=only_title(title)))

    def follow(self) -> None:
        """Bring the other texts after the alias: also those that a killed run left behind."""
        alias = json.loads(self.read("champion") or "null")
        if alias is None:
            return
        names = {"previous": alias.get("previous"), "challenger": _identified(alias.get("challenger"))}
        for name, record in names.items():
            if record or self.read(name):
                self.store.write_text(f"registry/{self.line}/{name}.json", canonical_json(record or {}))
        if self.read("anchor") is None:
            self.store.write_text(f"registry/{self.line}/anchor.json", canonical_json(_identified(self._first(alias))))
        self.store.update_text(f"registry/{self.line}/promotions.jsonl", lambda history: log_title(history or "", alias))

    def _first(self, alias: Record) -> Sequence[str]:
        """The line's first champion as far as is known: who held the title before this one, if it is there and was kept."""
        before = alias.get("incumbent")
        if before and before[1] not in alias.get("refused", []) and self.store.find(f"{before[0]}/checkpoint", before[1]):
            return list(before)
        return [alias["recipe"], alias["checkpoint"]]

    def _take_title(self, title: Record, present: str | None) -> None:
        text = canonical_json(title)

        def take(now: str | None) -> str:
            if now not in (present, text):
                raise TitleMovedError
            return text

        if present != text:
            self.store.update_text(f"registry/{self.line}/champion.json", take)

    def _before(self, out: Container[str]) -> Record | None:
        """Who held the title last but for some versions."""
        return next((title for title in reversed(self._titles()) if title["checkpoint"] not in out), None)

    def _titles(self) -> list[Record]:
        """Who held the title, oldest first: as it was logged, and who a killed run did not log."""
        alias = json.loads(self.read("champion") or "{}")
        return [*(row["champion"] for row in self._log()), *([alias["previous"]] if alias.get("previous") else [])]

    def _log(self) -> list[Record]:
        history = self.store.read_text(f"registry/{self.line}/promotions.jsonl") or ""
        return [json.loads(line) for line in history.splitlines() if line]


def log_title(history: str, alias: Record) -> str:
    """The log of promotions with the title held now, and the one before it where another machine has yet to log that."""
    last = json.loads(history.splitlines()[-1])["champion"] if history.strip() else None
    if last and is_same(last, alias):
        return history
    titles = [only_title(alias)]
    if (previous := alias.get("previous")) and not (last and is_same(last, previous)):
        titles.insert(0, previous)
    refused = {"refused": alias["refused"]} if alias.get("refused") else {}
    for title in titles:
        history += f"{canonical_json({'champion': title, 'previous': last, **refused})}\n"
        last = title
    return history


def only_title(record: Record) -> dict[str, Any]:
    """Who holds the title, and why."""
    return {name: record[name] for name in TITLE if name in record}


def is_same(a: Record, b: Record) -> bool:
    """Whether two titles are the same checkpoint's."""
    return (a["recipe"], a["checkpoint"]) == (b["recipe"], b["checkpoint"])


def _identified(identity: Sequence[str] | None) -> dict[str, str] | None:
    return {"recipe": identity[0], "checkpoint": identity[1]} if identity else None


def _name(title: Record) -> str:
    return f"{title['recipe']} ({title['checkpoint'][:12]})"
