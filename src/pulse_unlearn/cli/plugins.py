"""`pulse plugin check`: does an installed plug-in keep what a run asks of it?"""

from __future__ import annotations

import sys

import click


@click.group()
def plugin() -> None:
    """Look at packages of third parties that add methods, parsers and the like."""


@plugin.command()
@click.argument("package")
def check(package: str) -> None:
    """Try everything that the installed PACKAGE adds; exit code 1 if a rule is broken.

    Methods are applied to the embedded model, which takes seconds: values and gradients, edits, the
    same bits twice and after interruptions.
    """
    from pulse_unlearn.plugin_contract import check_package

    broken = 0
    for one in check_package(package):
        broken += one.problem is not None and not one.is_warning
        state = "ok" if one.problem is None else "warns" if one.is_warning else "FAILS"
        line = f"{state:5s}  {one.entry}: {one.rule}"
        if one.problem is not None:
            line += ": " + "; ".join(part.strip() for part in str(one.problem).splitlines())
        click.echo(line)
    if broken:
        click.echo(f"\n{broken} rules are broken")
        sys.exit(1)
