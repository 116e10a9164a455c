"""`negtraj study`: print what a study tells as Markdown, or write it into a document."""

import argparse
from pathlib import Path

from negtraj_dagster.exit_codes import SUCCESS


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    study = commands.add_parser("study", help="print what a study tells, or write it into a document")
    study.add_argument("name", metavar="STUDY")
    study.add_argument("--into", type=Path, help="a document: what stands between its marks `<!-- study NAME -->` is replaced")
    study.add_argument("--figure", type=Path, help="where the figure goes, as SVG")
    study.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print or write the present study."""
    from negtraj_dagster.reports.study import replace_marked, study_markdown
    from negtraj_dagster.settings import load_settings
    from negtraj_dagster.upkeep import reading_store

    settings = load_settings()
    with reading_store(settings) as store:
        published = store.require(f"study/{options.name}")
        if published.is_empty:
            print(f"No data: {published.content['reason']}")
            return SUCCESS
        text = study_markdown(published.content)
        if options.figure is not None and "negatives" in published.content:
            options.figure.write_bytes(store.file(published.folder, "figure.svg").read_bytes())
    if options.into is None:
        print(text)
    else:
        document = options.into.read_text(encoding="utf-8")
        options.into.write_text(replace_marked(document, options.name, text), encoding="utf-8")
    return SUCCESS
