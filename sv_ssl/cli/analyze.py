"""sv-analyze: how labelled embeddings lie on the sphere."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write, write_table
from sv_ssl.core.guard import check_outputs
from sv_ssl.core.seeds import stream

if TYPE_CHECKING:
    import numpy as np

    from sv_ssl.analysis.sphere import Pairs

ABOUT = """\
Measure and draw how embeddings of labelled recordings lie on the sphere: how tight the classes are, how far apart, how
evenly all of it is filled. EMBEDDINGS is a file or folder as sv-extract writes it (or Kaldi, npy, pt, ...).
"""
MORE = """\
LABELS is a manifest, or a CSV or TSV with a line of names and the id first; rows of other recordings are left alone.

what the numbers are (d = 1 - cosine of two different rows)
  uniformity  log of the mean of exp(-2 |u - v|^2) over all pairs: 0 if all are one point, lower is more even
  tolerance   mean cosine of two rows of one class; alignment is 2 - 2 tolerance, their mean squared distance
  within, between
              mean of d, and its deviation / mean (CV), averaged over the classes, and over the pairs of classes
  centres     of the classes: mean squared cosine and largest |cosine| with each other, beside the Welch bound, the
              least that so many directions in so many dimensions can have

DIR gets
  analysis.json  these numbers
  pairs.csv      every two classes: pairs, mean of d, CV (up to 100 classes)
  pairs.png      the same as colours
  map.png        the embeddings in two dimensions: the two of greatest variance, or with --map tsne neighbours near
                 neighbours (its distances mean nothing); of more than 5,000 a part, drawn at random

examples
  sv-analyze embeddings.npz --labels test.csv --out analysis
  sv-analyze embeddings.npz --labels words.csv --column label --out analysis --map tsne
"""
USUAL = ("label", "spk_id", "speaker")
FILES = ("analysis.json", "pairs.csv", "pairs.png", "map.png")
MOST_CLASSES = 100  # beyond which nobody reads pairs.csv
MOST_ON_MAP = 5000  # points


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _analyze(_parser().parse_args(argv)), "sv-analyze")


def _parser() -> Parser:
    parser = Parser(prog="sv-analyze", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("embeddings", metavar="EMBEDDINGS", help="file or folder of embeddings")
    add("--labels", metavar="FILE", required=True, help="manifest, CSV or TSV with the class of every embedding")
    add("--column", metavar="NAME", help=f"the labels' column (default: the first there is of {', '.join(USUAL)})")
    add("--out", metavar="DIR", required=True, help="folder to write")
    add("--map", choices=("pca", "tsne"), default="pca", help="how two dimensions are made (default: pca)")
    add("--seed", metavar="N", type=_seed, default=0, help="of the map (default: 0)")
    return parser


def _seed(text: str) -> int:
    if not 0 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text}: want a whole number from 0 to {2**32 - 1}")
    return int(text)


def _analyze(arguments: argparse.Namespace) -> None:
    from sv_ssl.analysis import sphere
    from sv_ssl.embeddings import store
    from sv_ssl.reporting import class_plots

    read = [("EMBEDDINGS", path) for path in store.files(arguments.embeddings)]
    read.append(("--labels", arguments.labels))
    check_outputs(read, [("--out", Path(arguments.out) / name) for name in FILES])
    ids, rows = store.read(arguments.embeddings)
    column, labels = _labels(arguments.labels, arguments.column, ids)
    pairs = sphere.pairs(rows, labels)
    points = _map(rows, labels, arguments.map, arguments.seed)
    summary = {"embeddings": arguments.embeddings, "column": column, **sphere.summary(rows, labels, pairs)}
    out = Path(arguments.out)
    with atomic_write(out / "analysis.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(_text(summary))
    written = list(FILES)
    if len(pairs.classes) <= MOST_CLASSES:
        _write_pairs(out / "pairs.csv", pairs)
    else:
        written.remove("pairs.csv")
        (out / "pairs.csv").unlink(missing_ok=True)  # of an earlier analysis
    class_plots.class_distances(out / "pairs.png", pairs.classes, pairs.mean, pairs.cv)
    class_plots.embedding_map(out / "map.png", *points)
    print(f"wrote {out}: {', '.join(written)}")
    hint = "; --map tsne shows neighbourhoods" if arguments.map == "pca" else ""
    print(f"next: look at the pictures{hint}")


def _labels(path: str, column: str | None, ids: Sequence[str]) -> tuple[str, list[str]]:
    """Return the column's name and a label for each id."""
    from sv_ssl.verification.manifest_columns import read_manifest

    columns = read_manifest(path, ids)
    name = column or next((name for name in USUAL if name in columns), None)
    if name not in columns:
        wanted = f'"{column}"' if column else f"{', '.join(USUAL)}: pass --column NAME"
        raise InputError(f"{path}: no column {wanted}; there are {', '.join(columns)}")
    empty = [i for i, label in zip(ids, columns[name]) if not label]
    if empty:
        raise InputError(f'{path}: {len(empty):,} of {len(ids):,} embeddings have no "{name}", such as {empty[0]}')
    return name, columns[name]


def _map(rows: np.ndarray, labels: Sequence[str], kind: str, seed: int) -> tuple:
    """Return points (P, 2), their labels, a title and names of the axes."""
    import numpy as np

    from sv_ssl.analysis import sphere

    chosen = np.sort(stream(seed, "map").permutation(len(rows))[:MOST_ON_MAP])
    rows, named = rows[chosen], np.asarray(labels)[chosen]
    if kind == "tsne":
        return sphere.tsne(rows, seed), named, "Embeddings by t-SNE"
    points, shares = sphere.pca(rows)
    return points, named, "Embeddings", *(f"{100 * share:.0f} % of the variance" for share in shares)


def _write_pairs(path: Path, pairs: Pairs) -> None:
    """Write a line for every two classes, and for each with itself where it has several rows."""
    count = len(pairs.classes)
    places = [(i, j) for i in range(count) for j in range(i, count) if pairs.number[i, j]]
    rows = [
        (pairs.classes[i], pairs.classes[j], pairs.number[i, j], pairs.mean[i, j], pairs.cv[i, j]) for i, j in places
    ]
    write_table(path, [("class_a", "class_b", "pairs", "mean", "cv"), *rows])


def _text(summary: dict) -> str:
    """Return the summary as the screen shows it."""
    within = summary["within"]
    between = summary["between"]
    centres = summary["centres"]
    bound = summary["welch"]
    lines = [
        f"{summary['n']:,} embeddings of {summary['dim']} dimensions, {summary['n_classes']:,} classes "
        f"({summary['column']})",
        f"  uniformity {_number(summary['uniformity'])}   tolerance {_number(summary['tolerance'])}   "
        f"alignment {_number(summary['alignment'])}",
        f"  1 - cosine within a class   mean {_number(within['mean'])}   CV {_number(within['cv'])}",
        f"             between classes  mean {_number(between['mean'])}   CV {_number(between['cv'])}",
        "             nearest classes  mean {:.4f}   {} and {}".format(
            summary["nearest"]["mean"], *(" ".join(name.split()) for name in summary["nearest"]["classes"])
        ),
        f"  class centres: mean cosine^2 {_number(centres['mean_squared_cosine'])} (Welch bound "
        f"{_number(bound['mean_squared_cosine'])}), largest |cosine| {_number(centres['largest_cosine'])} "
        f"({_number(bound['largest_cosine'])})",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
