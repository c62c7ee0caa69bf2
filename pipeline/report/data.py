"""DRIVER. The report's account of the rows: where each of them went, and what the splits hold."""

from __future__ import annotations

from pipeline.dataset import Manifest
from pipeline.report.markup import row, section, side_by_side, table, text


def data(manifest: Manifest | None) -> str:
    """Rows in and out, splits with their classes, reasons of rejection, changed values."""
    if manifest is None:
        return ""
    rows = manifest.accounting
    went = {"published": rows.published, "duplicates": rows.duplicates, "rejected": rows.rejected}
    shares = {name: count / max(1, rows.rows_in) for name, count in went.items()}
    bar = "".join(f"<i class='{name}' style='width:{share:.3%}'></i>" for name, share in shares.items() if share)
    legend = [
        row([f"<td><span class='swatch {name}'></span>{name}</td>", f"{count:,}", f"{shares[name]:.2%}"])
        for name, count in went.items()
    ]
    total = row(["<td><b>rows in</b></td>", f"<b>{rows.rows_in:,}</b>", ""])
    splits = [row([text(split), f"{manifest.rows(split):,}", _classes(manifest, split)]) for split in manifest.splits]
    reasons = sorted(rows.reasons.items(), key=lambda reason: -reason[1])
    return section(
        "Data",
        f"<p>{rows.rows_in:,} rows in = {rows.published:,} published + {rows.duplicates:,} duplicates"
        f" + {rows.rejected:,} rejected.</p><div class='bar'>{bar}</div>",
        side_by_side(
            table(["", "rows", "share"], [*legend, total]), table(["split", "rows", "classes"], splits, "words")
        ),
        table(["rejected because", "rows"], [row([text(reason), f"{count:,}"]) for reason, count in reasons]),
        table(["changed by rule", "values"], [row([text(r), f"{count:,}"]) for r, count in rows.repaired.items()]),
    )


def _classes(manifest: Manifest, split: str) -> str:
    """The share of each class, of several labels of each (``late=1``), among the rows of a split."""
    counts, rows = manifest.class_counts.get(split, {}), max(1, manifest.rows(split))
    return text(" · ".join(f"{name}: {count / rows:.1%}" for name, count in sorted(counts.items())))
