"""The command ``adapters``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from cluster_kit.cli.output import Column, print_json, print_table
from cluster_kit.errors import AdapterUnavailableError
from cluster_kit.ports import AdapterSpec
from cluster_kit.registry import AdapterRegistry


@dataclass(frozen=True, slots=True)
class Row:
    """An adapter. `problem` says why it cannot be used."""

    name: str
    schemes: list[str]
    capabilities: list[str]
    problem: str | None = None


def list_adapters(*, as_json: bool) -> None:
    """Print every installed adapter."""
    rows = sorted(_rows(), key=lambda row: row.name)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    columns = [Column("adapter"), Column("urls", fold=True), Column("capabilities", fold=True)]
    if any(row.problem for row in rows):
        columns.append(Column("problem", fold=True))
    cells = [
        (
            row.name,
            " ".join(f"{s}://" for s in row.schemes),
            " ".join(row.capabilities),
            row.problem,
        )
        for row in rows
    ]
    print_table(columns, [cell[: len(columns)] for cell in cells])


def _rows() -> Iterator[Row]:
    registry = AdapterRegistry()
    for spec in registry.specs():
        yield _row(spec)
    for error in registry.unavailable():
        yield Row(error.name, [], [], str(error))


def _row(spec: AdapterSpec) -> Row:
    missing, schemes = spec.missing(), spec.usable_schemes()
    if not missing:
        return Row(spec.name, schemes, spec.offers())
    useless = not schemes or any(not driver.schemes for driver in missing)
    packages = ", ".join(f"the package {driver.package}" for driver in missing)
    error = AdapterUnavailableError(spec.name, packages, spec.install)
    lost = [f"{scheme}://" for scheme in spec.schemes if scheme not in schemes]
    problem = f"{error} (for {' '.join(lost)})" if lost and not useless else str(error)
    return Row(spec.name, schemes, [] if useless else spec.offers(), problem)
