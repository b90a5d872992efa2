"""What scores one to 4,096 rows? XGBoost (two ways), ONNX Runtime and the kernel, side by side in one run.

CPU microseconds per row, one thread, the median of seven repetitions; the contenders take turns within a repetition,
so that a busy machine slows all of them alike. Every contender's scores are held to XGBoost's before it is timed.

    python -m bench.score_rows [--trees 100] [--depth 6] [--features 35]

ONNX Runtime takes part if onnxruntime, onnxmltools and skl2onnx are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import xgboost as xgb

from bench.payments.machine import describe
from gillnet._kernel import Batch
from gillnet.serving import KernelScorer, XGBoostScorer, choose_scorer, load_model, save_model

BATCH_SIZES = (1, 2, 4, 8, 64, 512, 4_096)
REPETITIONS = 7
SECONDS_PER_TIMING = 0.03
SEED = 20_240_601

Score = Callable[[np.ndarray], np.ndarray]


def make_rows(count: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows like payments: skewed amounts, counts, flags, one value in twenty missing; labels with noise."""
    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(count, features)).astype(np.float32)
    rows[:, ::3] = np.round(np.exp(rows[:, ::3] * 1.5 + 2), 2)
    rows[:, 1::3] = rng.poisson(3, rows[:, 1::3].shape)
    signal = np.log1p(rows[:, 0]) * rows[:, 1] + rows[:, 2] * 3 + np.abs(rows[:, 5 % features]) * 2
    label = signal + rng.normal(scale=4, size=count) > np.quantile(signal, 0.9)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows, label


def train(rows: np.ndarray, label: np.ndarray, args: argparse.Namespace) -> Path:
    names = [f"f{index}" for index in range(args.features)]
    data = xgb.DMatrix(rows, label, feature_names=names)
    params = {"objective": "binary:logistic", "max_depth": args.depth, "eta": 0.1, "seed": SEED}
    booster = xgb.train(params, data, args.trees)
    path = Path(tempfile.mkdtemp(prefix="gillnet-bench-")) / "bench.ubj"
    save_model(booster, path, signature=[(name, "float64") for name in names])
    return path


def onnx_scorer(booster: xgb.Booster, features: int) -> Score | None:
    try:
        import onnxruntime
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError as missing:
        print(f"ONNX Runtime is left out: {missing}")
        return None
    # The converter wants a classifier's attributes and the names f0, f1, ….
    model = convert_xgboost(booster, initial_types=[("rows", FloatTensorType([None, features]))])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output = session.get_outputs()[1].name
    return lambda rows: session.run([output], {"rows": rows})[0][:, 1]


def contenders(path: Path, features: int) -> list[tuple[str, Score]]:
    model = load_model(path)
    chosen = choose_scorer(model)
    assert isinstance(chosen, KernelScorer), "the kernel does not reproduce this model"
    reference = XGBoostScorer(model)

    def by_dmatrix(rows: np.ndarray) -> np.ndarray:
        return model.booster.predict(xgb.DMatrix(rows, nthread=1), validate_features=False)

    found: list[tuple[str, Score]] = [
        ("XGBoost inplace", reference.predict),
        ("XGBoost DMatrix", by_dmatrix),
        ("kernel, matrix", chosen.predict),
    ]
    if onnx := onnx_scorer(model.booster, features):
        found.insert(2, ("ONNX Runtime", onnx))
    return found


def check(found: list[tuple[str, Score]], rows: np.ndarray) -> dict[str, float]:
    """Return the largest distance from XGBoost per contender; the kernel's must be nothing at all."""
    expected = found[0][1](rows)
    distance = {name: float(np.abs(score(rows) - expected).max()) for name, score in found}
    assert distance["kernel, matrix"] == 0.0
    return distance


def cpu_us(call: Callable[[], object], rows: int, times: int) -> float:
    begin = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - begin) / 1_000 / times / rows


def measure(calls: dict[str, Callable[[], object]], rows: int) -> dict[str, float]:
    """Time all calls in turn, often enough each for the clock's resolution; the medians."""
    times = {}
    for name, call in calls.items():
        once = cpu_us(call, 1, 3)
        times[name] = max(1, int(SECONDS_PER_TIMING * 1e6 / max(once, 1e-3)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPETITIONS):
        for name, call in calls.items():
            taken[name].append(cpu_us(call, rows, times[name]))
    return {name: float(np.median(values)) for name, values in taken.items()}


def run(args: argparse.Namespace) -> dict[str, object]:
    rows, label = make_rows(60_000, args.features)
    path = train(rows[:50_000], label[:50_000], args)
    rows = rows[50_000:]
    found = contenders(path, args.features)
    distance = check(found, rows)
    kernel = KernelScorer(load_model(path))
    xgboost = XGBoostScorer(load_model(path))
    columns = {f"f{index}": rows[:, index].astype(np.float64) for index in range(args.features)}
    whole = pa.record_batch({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    scores: dict[int, dict[str, float]] = {}
    reasons: dict[int, dict[str, float]] = {}
    for size in BATCH_SIZES:
        part, batch = np.ascontiguousarray(rows[:size]), Batch.from_pyarrow(whole.slice(0, size))
        calls = {name: (lambda score=score, part=part: score(part)) for name, score in found}
        calls["kernel, Arrow batch"] = lambda batch=batch: kernel.score(batch)
        scores[size] = measure(calls, size)
        if size <= 64:
            reasons[size] = measure(
                {
                    "XGBoost pred_contribs": lambda part=part: xgboost.contributions(part),
                    "kernel TreeSHAP": lambda part=part: kernel.contributions(part),
                },
                size,
            )
    return {
        "what": "CPU microseconds per row, one thread, median of 7",
        "machine": describe(),
        "model": {"trees": args.trees, "depth": args.depth, "features": args.features, "xgboost": xgb.__version__},
        "largest_distance_from_xgboost": distance,
        "score_us_per_row": scores,
        "contributions_us_per_row": reasons,
    }


def show(title: str, table: dict[int, dict[str, float]]) -> None:
    names = list(next(iter(table.values())))
    print(f"\n{title}\n{'rows':>6}  " + "  ".join(f"{name:>21}" for name in names))
    for size, row in table.items():
        print(f"{size:>6}  " + "  ".join(f"{row[name]:>21.2f}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--features", type=int, default=35)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "score_rows.json")
    args = parser.parse_args()
    result = run(args)
    show("Scores: CPU µs per row", result["score_us_per_row"])
    show("Reason codes (TreeSHAP): CPU µs per row", result["contributions_us_per_row"])
    print(f"\nLargest distance from XGBoost: {result['largest_distance_from_xgboost']}\n{result['machine']}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
