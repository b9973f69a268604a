"""The commands: one function each. What is slow to import is imported where it is used, so that help is quick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from dissect.base.checks import as_path, check_whole
from dissect.base.errors import DissectError
from dissect.base.ranks import is_main
from dissect.cli.flags import (
    NotVaried,
    OfAtlas,
    OfCost,
    OfLoading,
    OfPaper,
    OfRelearning,
    OfRun,
    OfStability,
    OfTune,
    OnRay,
    Out,
    OutOrDefault,
    Varied,
)
from dissect.experiments.cost import H100_OPERATIONS, cost_table
from dissect.experiments.grid import Grid, all_cells
from dissect.experiments.methods import Preset, methods_grids
from dissect.experiments.paper import PAPER_MODELS, Experiment, paper_grids
from dissect.experiments.tune_names import COMBINERS, EDITS, IMPORTANCES
from dissect.runs.config import PruneConfig

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from dissect.cards.heads import HeadCard
    from dissect.cards.neurons import NeuronCard
    from dissect.cards.samples import Samples
    from dissect.evidence.relearning import Relearning
    from dissect.experiments.run_grid import GridResult
    from dissect.runs.run import Run


def prune(config: OfRun, out: OutOrDefault = None, n_devices: int = 1) -> None:
    """Prune the units that matter for --forget and not for --retain, step by step, and measure both.

    The same command resumes a run that was stopped. On many GPUs or machines: torchrun ... -m dissect prune ...

    Args:
        config: The options of the run.
        out: Run folder; by default one below runs/ named after the options and the model's content.
        n_devices: GPUs to spread the layers of the model over, where it is larger than one of them.
    """
    from dissect.runs.inputs import LastModel
    from dissect.runs.prune import run_config

    run = run_config(config, load=LastModel(n_devices), out=out)
    if is_main():
        _print_summary([run])
        print(f"\nrun: {run.path}\nsee it: dissect report {run.path}")


def compare(
    varied: Varied, others: NotVaried, on: OnRay, preset: Preset | None = None, out: Out = Path("runs/grid")
) -> None:
    """Run every combination of models, data sets, sites, importances and selectors; print the paper's Table 2.

    A run that is finished in the folder is not run again. Writes summary.csv and the figures beside the runs.

    Args:
        varied: What to combine.
        others: The options that all runs have.
        on: Where they run.
        preset: methods runs the paper's importances, those of weights and gradients, compensation, learned gates and
            random units in place of --importances and --selectors, and prints first what each forgets at 5%, 10% and
            20% retain drop.
        out: Folder of all runs.
    """
    from dissect.experiments.run_grid import run_grid

    out = as_path("out", out)
    model, forget, retain = (next(iter(names), "") for names in (varied.models, varied.forget, varied.retain))
    base = PruneConfig(model, forget, retain, **vars(others))
    grid = Grid(base, **vars(varied))
    result = run_grid(grid if preset is None else methods_grids(grid), out, cluster=on.cluster())
    if is_main():
        above = "" if preset is None or not result.runs else _write_frontier(result.runs, out)
        _show_grid(result, out, result.runs, above=above)


def reproduce(
    what: tyro.conf.Positional[Experiment],
    options: OfPaper,
    on: OnRay,
    models: tuple[str, ...] = PAPER_MODELS,
    offline: bool = False,
    out: Out = Path("runs/paper"),
) -> None:
    """Run one of the paper's experiments, by default at its own settings: 50 steps of 2%, both directions, both pairs.

    Runs that two experiments share are run once.

    Args:
        what: fig1 (accuracy), fig2 (perplexity), fig3 (sites and importances), table2, or claims (all it compares).
        options: The options that all runs have.
        on: Where they run.
        models: The paper's models, or any others.
        offline: Take pairs that need no hub: Python against Wikipedia, and C++ against Python.
        out: Folder of all runs.
    """
    from dissect.experiments.run_grid import run_grid

    out = as_path("out", out)
    result = run_grid(paper_grids(what, models, offline=offline, **vars(options)), out, cluster=on.cluster())
    if not is_main():
        return
    _check_any(result)
    drawn, claims = result.runs, ""
    if what == "claims":
        claims = _write_claims(drawn, out)
        of_figure_1 = all_cells(paper_grids("fig1", models, offline=offline, **vars(options)), out)
        drawn = [run for run in drawn if run.config in of_figure_1]
    _show_grid(result, out, drawn, above=claims)


def cost(
    options: OfCost,
    what: tyro.conf.Positional[tuple[Experiment, ...]] = ("fig1", "fig3", "claims"),
    models: tuple[str, ...] = PAPER_MODELS,
    gpus: tuple[int, ...] = (1, 8, 64),
    operations_per_second: float = H100_OPERATIONS,
) -> None:
    """Calculate what the paper's experiments cost: operations, counted, and hours at an assumed rate; runs nothing.

    Args:
        options: As for reproduce.
        what: The experiments; runs that they share count once.
        models: The paper's models, or smollm2-135m.
        gpus: Numbers of GPUs to show hours for.
        operations_per_second: Of one GPU, in matrix products; by default 40% of an H100's dense bfloat16 peak.
    """
    grids = [grid for name in what for grid in paper_grids(name, models, **vars(options))]
    table = cost_table(all_cells(grids, Path()), gpus, operations_per_second)
    print(table.to_string(index=False, na_rep=""))
    print(f"\ncalculated, not measured: at {operations_per_second:.3g} operations a second and GPU")


def _write_frontier(runs: list[Run], out: Path) -> str:
    """Write the table of methods at the same cost and its figure; gives what is printed of it."""
    from dissect.base.storage import write_text
    from dissect.experiments.frontier import frontier_table
    from dissect.views import frontier, write_page

    table = frontier_table(runs)
    write_text(out / "frontier.csv", table.to_csv(index=False))
    page = write_page([frontier(runs)], out / "frontier.html")
    shown = table.drop(columns=["model", "forget", "retain"]).dropna(axis=1, how="all")
    return "\n" + shown.to_string(index=False, na_rep="") + f"\n\n{page}\n\n"


def _write_claims(runs: list[Run], out: Path) -> str:
    """Write the table of claims; gives what is printed of it."""
    from dissect.base.storage import write_text
    from dissect.experiments.claims import claims_table

    table = claims_table(runs)
    write_text(out / "claims.csv", table.to_csv(index=False))
    groups = table.groupby("claim", sort=False)
    return "".join(f"\n{claim}\n{rows.drop(columns='claim').to_string(index=False)}\n" for claim, rows in groups)


def _show_grid(result: GridResult, out: Path, drawn: list[Run], above: str = "") -> None:
    """Write the figures of `drawn`, then print all tables."""
    from dissect.experiments.tables import table_2
    from dissect.views import write_figures

    _check_any(result)
    pages = write_figures(drawn, out) if drawn else []
    print("\n".join([above + table_2(result.runs).to_string(), *map(str, pages)]))
    if result.failures:
        names = ", ".join(result.failures)
        raise DissectError(f"{len(result.failures)} of {len(result.failures) + len(result.runs)} runs failed: {names}")


def _check_any(result: GridResult) -> None:
    if not result.runs:
        raise DissectError(f"every run of the grid failed, the first with: {next(iter(result.failures.values()))}")


def export(run: tyro.conf.Positional[Path], out: Out, step: int | None = None, shrink: bool = False) -> None:
    """Write a run's pruned model as a transformers folder that loads without dissect.

    Args:
        run: The run folder.
        out: The folder to write, which must be empty where it exists already.
        step: The step whose mask is pruned; the last one if not given.
        shrink: Remove pruned feed-forward units from the weights, down to the widest layer's count.
    """
    from dissect.runs.export import export
    from dissect.runs.run import Run

    print(export(Run.load(run), out, step=step, shrink=shrink))


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]], cards: int = 0, samples: int = 0, out: OutOrDefault = None
) -> None:
    """Write one HTML page about one or several runs; it opens offline.

    Args:
        runs: Run folders; the first is shown layer by layer, the first that has scores also unit by unit.
        cards: Show cards of that many units, the highest scores of the first run that has scores; needs its model.
        samples: Show how the first run's model continues that many test documents of each side, unpruned and pruned
            up to the step that the page begins with; needs its model.
        out: The page; report.html in the first run's folder if not given.
    """
    from dissect.runs.run import Run
    from dissect.views.write_report import write_report

    if not runs:
        raise DissectError("a report needs at least one run folder: dissect report RUN [RUN ...]")
    loaded = [Run.load(path) for path in runs]
    check_whole("cards", cards, 0)
    check_whole("samples", samples, 0)
    shown_cards, shown_samples = _cards_and_samples(loaded, cards, samples)
    print(write_report(loaded, out or runs[0] / "report.html", shown_cards, samples=shown_samples).resolve())


def _cards_and_samples(
    runs: list[Run], cards: int, samples: int
) -> tuple[Sequence[NeuronCard | HeadCard], Samples | None]:
    """Both, with the model loaded once where they are of the same run."""
    from dissect.cards.of_run import run_model, top_cards
    from dissect.cards.samples import run_samples
    from dissect.views.write_report import scored_run

    scored = scored_run(runs)
    model = run_model(scored) if cards and samples and scored is runs[0] else None
    return (
        top_cards(scored, cards, model=model) if cards else (),
        run_samples(runs[0], samples, model=model) if samples else None,
    )


def rerun(run: tyro.conf.Positional[Path], out: OutOrDefault = None, device: str | None = None) -> int:
    """Repeat a run from its record and compare: bit for bit on the same machine, within tolerance elsewhere.

    Names the first difference. Exit status 0 if the two are the same, 1 if they differ.

    Args:
        run: The run folder.
        out: The folder of the repetition; the run's with -rerun after its name if not given.
        device: cpu, cuda, ...; the device that the run asked for if not given.
    """
    from dissect.runs.rerun import rerun

    result = rerun(run, out=out, device=device)
    print(f"\n{result}")
    return 0 if result.same else 1


def relearn(
    run: tyro.conf.Positional[Path],
    options: OfRelearning,
    step: int | None = None,
    gold: str | None = None,
    regrowth: bool = True,
    out: OutOrDefault = None,
) -> None:
    """Train a run's pruned model, and controls, on the forgotten text: does it come back, and how fast?

    Prints how many steps each takes until it is back, and the anamnesis index. Writes curves.csv, summary.csv,
    regrowth.csv and relearning.html. The same command resumes a relearning that was stopped.

    Args:
        run: The run folder.
        options: How they are trained and measured.
        step: The step whose mask is cut; the last one if not given.
        gold: A model that never saw the forgotten text, as a further control: a known name, a hub id or a folder.
        regrowth: Also map which units took over in the training that ends best; needs --save.
        out: Folder of the relearning; the run's with -relearn (or -heal, with --on retain) after its name if not given.
    """
    from dissect.base.storage import write_text
    from dissect.evidence.relearn import relearn
    from dissect.runs.run import Run
    from dissect.views import relearning, write_page

    opened = Run.load(run)
    result = relearn(opened, step=step, gold=gold, out=out, **vars(options))
    write_text(result.path / "curves.csv", result.table().to_csv(index=False))
    write_text(result.path / "summary.csv", result.summary().to_csv(index=False))
    figures = [relearning(result)]
    if regrowth and options.save:
        figures += _regrowth(result, opened, step)
    print(f"\n{result}\n\n{write_page(figures, result.path / 'relearning.html').resolve()}")


def _regrowth(result: Relearning, run: Run, step: int | None) -> list[Figure]:
    """Map which units took over, write the table of them, and draw it, a figure for each site."""
    import pandas

    from dissect.base.storage import write_text
    from dissect.evidence.regrowth import regrowth_of_run
    from dissect.views import regrowth

    maps = regrowth_of_run(result, run, step=step)
    table = pandas.concat([each.table() for each in maps.values()], ignore_index=True)
    write_text(result.path / "regrowth.csv", table.to_csv(index=False))
    return [regrowth(each) for each in maps.values()]


def stability(
    options: OfStability,
    sites: tuple[str, ...] = ("mlp", "value", "pre_out"),
    importances: tuple[str, ...] = ("abs", "rms", "std"),
    fraction: float = 0.02,
    tokens: int = 20_000,
    context: int = 256,
    splits: int = 5,
    out: Out = Path("runs/stability"),
) -> None:
    """Measure how many predictions are enough: do masks chosen by two halves of the text agree?

    Prints the Jaccard index of the two against the number of predictions, and from which number on it is high enough.
    Writes stability.csv and stability.html.

    Args:
        options: Model and text.
        sites: mlp, value, pre_out, head.
        importances: abs, rms, std, freq, sqrt.
        fraction: How many units a mask takes, as a fraction of all units of its site.
        tokens: Predictions of each corpus, for both halves together.
        context: Tokens in a window.
        splits: How often the text is split into two halves.
        out: Folder of the table and the page.
    """
    from dissect.base.storage import locked, write_text
    from dissect.experiments.stability import stability
    from dissect.views import write_page

    out = as_path("out", out)
    sizes = {"fraction": fraction, "tokens": tokens, "context": context, "splits": splits}
    with locked(out):
        result = stability(sites=sites, importances=importances, **sizes, **vars(options))
        write_text(out / "stability.csv", result.table.to_csv(index=False))
        print(f"\n{result}\n\n{write_page([result.figure()], out / 'stability.html')}")


def atlas(
    corpora: tyro.conf.Positional[tuple[str, ...]],
    options: OfAtlas,
    site: str = "mlp",
    fraction: float = 0.02,
    retain: str | None = None,
    clusters: int | None = None,
    out: Out = Path("runs/atlas"),
) -> None:
    """Relate the skills that several corpora stand for: cut the units of each, and measure what that costs the others.

    Prints the matrix of costs, the agreement of the cuts with its noise floor, and the modules. Writes the atlas,
    costs.csv, units.csv and a page, atlas.html.

    Args:
        corpora: Two or more, each NAME=CORPUS or a corpus that is its own name: python=python-stdlib c++=torch-headers.
        options: Model and text, and how units are chosen.
        site: Where units are cut: mlp, value, pre_out or head.
        fraction: How many units each cut takes, as a fraction of all units of the site.
        retain: The name of a corpus that all others are scored against; all the others if not given.
        clusters: How many clusters of units to look for; twice as many as there are corpora if not given.
        out: Folder of the atlas.
    """
    from dissect.base.storage import locked, write_text
    from dissect.experiments.atlas import atlas
    from dissect.views import write_atlas

    out = as_path("out", out)
    with locked(out):
        chosen = {"site": site, "fraction": fraction, "retain": retain, "clusters": clusters}
        result = atlas(corpora=corpora, **chosen, **vars(options))
        result.save(out)
        write_text(out / "costs.csv", result.table().to_csv(index=False))
        write_text(out / "units.csv", result.units().to_csv(index=False))
        print(f"\n{result}\n\n{write_atlas(result, out / 'atlas.html').resolve()}")


def benchmark(
    run: tyro.conf.Positional[Path],
    tasks: tyro.conf.Positional[tuple[str, ...]],
    steps: tuple[int, ...] | None = None,
    limit: int | None = None,
    shots: int | None = None,
    chat_template: bool = False,
    include_path: Path | None = None,
    seed: int = 0,
    device: str | None = None,
    batch_size: int | None = None,
) -> None:
    """Ask a run's model the tasks of lm-evaluation-harness, unpruned and pruned (pip install 'dissect[eval]').

    Prints both side by side, and writes the numbers and a page into the run folder's benchmarks/. The same command
    reads what is there, and measures only what is not.

    Args:
        run: The run folder.
        tasks: Tasks, groups or tags, such as wmdp_bio mmlu; human_eval_bits and true_false need no hub.
        steps: The steps to measure beside the unpruned model; the last one if not given.
        limit: Ask no more than so many documents of each task.
        shots: Solved examples before each question; as the task says if not given.
        chat_template: Put questions in the model's chat template.
        include_path: A folder with YAML files of your own tasks; Python functions that they name are run.
        seed: Decides which examples are shown.
        device: cpu, cuda, ...; the device that the run asked for if not given.
        batch_size: Requests in a forward pass; 8 if not given, and fewer where memory is short.
    """
    from dissect.evidence.benchmark import FOLDER, benchmark
    from dissect.runs.run import Run
    from dissect.views import benchmarks, write_page

    loaded, asked = Run.load(run), {"limit": limit, "shots": shots, "chat_template": chat_template, "seed": seed}
    place = {"include_path": include_path, "device": device, "batch_size": batch_size}
    result = benchmark(loaded, tasks, steps=steps, **asked, **place)
    print(f"\n{result}\n\n{write_page([benchmarks(result)], run / FOLDER / 'benchmarks.html').resolve()}")


def quantize(
    run: tyro.conf.Positional[Path],
    bits: tuple[int, ...] = (8, 4),
    step: int | None = None,
    folder: Path | None = None,
    seed: int = 0,
    device: str | None = None,
    batch_size: int | None = None,
) -> None:
    """Measure a run's pruned model in 8 and 4 bits, beside the unpruned one (pip install 'dissect[quantized]').

    A third model has lost as many units at random. Prints accuracies with intervals, and how many pruned units still
    write zero; writes them and a page into the run folder's quantized/. The same command resumes, or reads what is
    there.

    Args:
        run: The run folder.
        bits: 8, 4, or both.
        step: The step whose mask is pruned; the last one if not given.
        folder: Where exported models are written for the moment; a temporary one if not given.
        seed: Decides which units the random control loses.
        device: cpu, cuda, ...; the device that the run asked for if not given.
        batch_size: Windows in a forward pass.
    """
    from dissect.evidence.quantize import FOLDER, quantize
    from dissect.runs.run import Run
    from dissect.views import quantization, write_page

    place = {"folder": folder, "device": device, "batch_size": batch_size}
    result = quantize(Run.load(run), bits=bits, step=step, seed=seed, **place)
    page = write_page([quantization(result)], run / FOLDER / f"step-{result.step}.html")
    print(f"\n{result}\n\n{page.resolve()}")


def attack(run: tyro.conf.Positional[Path], budget: str = "standard", step: int | None = None, seed: int = 0) -> None:
    """Try to get back what a run pruned: by training on it, in fewer bits, by examples in the prompt, and inside.

    Prints a table of what came back, by which way, at what cost; writes it and a page into the run folder's attack/,
    and `dissect report` shows it. The same command resumes with what is not there yet.

    Args:
        run: The run folder.
        budget: quick (5 steps of training), standard (20 at two rates) or thorough (100 at three rates, adapters too).
        step: The step whose mask is pruned; the last one if not given.
        seed: Of all that is drawn.
    """
    from dissect.evidence.attack import attack
    from dissect.evidence.verdict import FOLDER
    from dissect.runs.run import Run
    from dissect.views import write_attack

    result = attack(Run.load(run), budget=budget, step=step, seed=seed)
    print(f"\n{result}\n\n{write_attack(result, run / FOLDER / 'attack.html').resolve()}")


def in_context(
    run: tyro.conf.Positional[Path],
    examples: tuple[int, ...] = (0, 1, 4, 16),
    example_tokens: int | None = None,
    tokens: int = 2_000,
    step: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> None:
    """Measure whether examples in the prompt bring back what a run pruned: forget test text after k train documents.

    Documents of the retain text are the control. Prints the accuracies with intervals; writes them and a page into the
    run folder's in_context/.

    Args:
        run: The run folder.
        examples: The numbers of examples, k.
        example_tokens: Tokens of a document's beginning that an example has, at most; 64, or as many as fit, if not
            given.
        tokens: About how many predictions.
        step: The step whose mask is pruned; the last one if not given.
        seed: Decides which documents stand before which window.
        batch_size: Windows in a forward pass.
    """
    from dissect.base.storage import with_folder, write_text
    from dissect.evidence.in_context import FOLDER, in_context
    from dissect.runs.run import Run
    from dissect.views import in_context as draw
    from dissect.views import write_page

    options = {"examples": examples, "example_tokens": example_tokens, "tokens": tokens, "seed": seed}
    result = in_context(Run.load(run), step=step, batch_size=batch_size, **options)
    write_text(with_folder(run / FOLDER / f"step-{result.step}.csv"), result.table().to_csv(index=False))
    page = write_page([draw(result)], run / FOLDER / f"step-{result.step}.html")
    print(f"\n{result}\n\n{page.resolve()}")


def inside(
    run: tyro.conf.Positional[Path],
    step: int | None = None,
    tokens: int = 4_000,
    probe_tokens: int = 2_000,
    seed: int = 0,
    device: str | None = None,
    batch_size: int | None = None,
    out: OutOrDefault = None,
) -> None:
    """Look for the forgotten text in every layer of a run's model, unpruned and pruned: logit lens and linear probes.

    Writes a table and a page, step-N.csv and step-N.html (pip install 'dissect[evidence]').

    Args:
        run: The run folder.
        step: The step whose mask is pruned; the last one if not given.
        tokens: Predictions for the logit lens.
        probe_tokens: Positions of each side to train probes on, and as many to measure them; 0 leaves probes out.
        seed: Decides which windows are read.
        device: cpu, cuda, ...; the device that the run asked for if not given.
        batch_size: Windows in a forward pass.
        out: Folder of the two files; inside/ in the run's folder if not given.
    """
    from dissect.base.storage import locked, write_text
    from dissect.evidence.inside import FOLDER, inside
    from dissect.runs.run import Run
    from dissect.views import inside as draw
    from dissect.views import write_page

    out = run / FOLDER if out is None else as_path("out", out)
    opened, sizes = Run.load(run), {"tokens": tokens, "probe_tokens": probe_tokens, "seed": seed}
    result = inside(opened, step=step, **sizes, device=device, batch_size=batch_size)
    with locked(out):
        write_text(out / f"step-{result.step}.csv", result.table().to_csv(index=False))
        page = write_page([draw(result)], out / f"step-{result.step}.html")
    print(f"\n{result}\n\n{page.resolve()}")


def tune(
    options: OfTune,
    trials: int = 60,
    minutes: float | None = None,
    retain_drop: float = 0.05,
    sites: tuple[str, ...] = ("mlp", "pre_out"),
    importances: tuple[str, ...] = IMPORTANCES,
    combiners: tuple[str, ...] = COMBINERS,
    edits: tuple[str, ...] = EDITS,
    steps: int = 10,
    validation_tokens: int | None = None,
    first_position: bool | None = None,
    out: Out = Path("runs/tuned"),
) -> None:
    """Choose how to prune: try settings on validation documents, and run the best of them on test documents.

    Statistics are collected once. The same command resumes after the last trial that ended. Writes trials.csv,
    front.csv and a page, tuning.html; the run of the best settings is in best/. Needs Optuna (pip install
    'dissect[tune]').

    Args:
        options: Model and text.
        trials: How many settings to try; the first are abs, ratio and zero.
        minutes: Start no trial after as many minutes of trials.
        retain_drop: Trials are judged by the forget drop where the retain drop first reaches this fraction.
        sites: Each of them, and any of them together: mlp, value, pre_out, head.
        importances: As for prune.
        combiners: As for prune; a number that is not given is searched for.
        edits: What becomes of units: zero, mean, compensate.
        steps: Steps of the final run.
        validation_tokens: Predictions to choose by, of other train documents; a quarter of --tokens if not given.
        first_position: Count the first position of each window in the statistics; both are tried if not given.
        out: Folder of the trials and of the final run.
    """
    from dissect.base.storage import write_text
    from dissect.experiments.frontier import frontier_table
    from dissect.experiments.tune import tune
    from dissect.views import write_page

    space = {"sites": sites, "importances": importances, "combiners": combiners, "edits": edits}
    budget = {"trials": trials, "minutes": minutes, "retain_drop": retain_drop, "steps": steps}
    more = {"validation_tokens": validation_tokens, "first_position": first_position}
    result = tune(out=out, **space, **budget, **more, **vars(options))
    write_text(result.folder / "trials.csv", result.trials.to_csv(index=False))
    write_text(result.folder / "front.csv", result.front().to_csv(index=False))
    page = write_page([result.figure()], result.folder / "tuning.html")
    table = frontier_table([result.run]).drop(columns=["model", "forget", "retain", "runs"])
    print(f"\n{result}\ntest documents:\n{table.to_string(index=False)}\n\n{page.resolve()}")


def demo(out: Out = Path("runs/demo")) -> None:
    """Prune Python out of SmolLM2-135M while keeping English prose, beside a random baseline; about five minutes.

    Args:
        out: Folder of the two runs and of the page.
    """
    from dissect.cli.demo import run_demo

    runs, page = run_demo(as_path("out", out))
    _print_summary(runs)
    print(f"\nthe page: {page.resolve()}")


def models(options: OfLoading, model: tyro.conf.Positional[str | None] = None) -> None:
    """List the models known by name, and which of them are on this machine; or say what a model is loaded as.

    That reads its config and no weights: the class it is loaded as, and which sites it has.

    Args:
        options: How it is loaded.
        model: A known name, a hub id or a folder.
    """
    from dataclasses import replace

    from dissect.models.describe import describe_model
    from dissect.models.find import find_model
    from dissect.models.names import known_models
    from dissect.models.options import LoadOptions

    how = LoadOptions(**vars(options))
    if model is not None:
        try:
            source = find_model(model, how)
        except DissectError:
            if how.bridge is not None:
                raise
            source = find_model(model, replace(how, bridge=True))  # or else its error, which says more
        print(describe_model(source))
        return
    if how != LoadOptions():
        raise DissectError("options of loading are for one model, such as dissect models NAME_OR_FOLDER --bridge")
    for known in known_models():
        print(f"{known.name:<16} {'cached' if known.cached else '-':<8} {known.source}")
    print("\nor any hub id (owner/name), or any local transformers folder: dissect models NAME_OR_FOLDER says more")


def _print_summary(runs: list[Run]) -> None:
    """Print the summary table: the paper's Table 2 figure and the operating points."""
    import pandas

    from dissect.runs.tables import summary_columns, summary_rows

    table = pandas.DataFrame(summary_rows(runs), columns=list(summary_columns(runs)))
    print("\n" + table.to_string(index=False))


COMMANDS = {
    "prune": prune,
    "compare": compare,
    "reproduce": reproduce,
    "cost": cost,
    "export": export,
    "report": report,
    "rerun": rerun,
    "relearn": relearn,
    "stability": stability,
    "atlas": atlas,
    "benchmark": benchmark,
    "quantize": quantize,
    "in-context": in_context,
    "attack": attack,
    "inside": inside,
    "tune": tune,
    "models": models,
    "demo": demo,
}
