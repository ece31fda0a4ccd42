"""A plan for people. Plain ASCII, and readable at 40 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.differing import differing
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.parts import Part
from orchestrator.planning.placement import device_names
from orchestrator.planning.plan import Plan
from orchestrator.planning.preflight import human_bytes
from orchestrator.planning.split_plan import ProducerPlan
from orchestrator.tables import show_rows


def show_plan(console: Console, plan: Plan, inventory: Inventory, shortages: Sequence[str]) -> None:
    """Print everything of a plan; shortages last, where the eye ends up."""
    for paragraph in _head(plan):
        console.print(paragraph)
    _show_transcoders(console, plan)
    for paragraph in _rest(plan, inventory):
        console.print(paragraph)
    for note in plan.notes:
        console.print(Text(f"note: {note}"))
    for shortage in shortages:
        console.print(Text(shortage, style="bold red"))


def _head(plan: Plan) -> Iterator[RenderableType]:
    yield Text(plan.name, style="bold") + Text(
        f": {_counted(len(plan.transcoders))} of {plan.model}", style="not bold"
    )
    threads = f", {plan.threads} thread{'s' * (plan.threads > 1)}" if plan.threads else ""
    each = " each" if threads and len(plan.cells) + len(plan.producers) > 1 else ""
    yield Text(f"{plan.topology} on {plan.device}{threads}{each}: {plan.why}")
    yield Text(_predicted_line(plan))
    products = f"; products: {', '.join(plan.products)}" if plan.products else ""
    yield Text(f"kernels: {plan.kernels}{products}")
    yield Text()


def _predicted_line(plan: Plan) -> str:
    """`predicted: 1,900 tokens/s fused, 1,400 split`; relative where a device is not known."""
    own = plan.predicted[plan.topology]
    others = [(t, p) for t, p in plan.predicted.items() if t != plan.topology]
    ordered = [(plan.topology, own), *others]
    several = len(plan.cells) + len(plan.producers) > 1
    pace = f"; {own.slowest} sets the pace" if several else ""
    if own.known:
        told = ", ".join(f"{_rounded(p.tokens_per_second)} {t}" for t, p in ordered)
        return f"predicted: tokens/s {told}{pace}"
    told = ", ".join(f"{t} {p.tokens_per_second / own.tokens_per_second:.1f}" for t, p in ordered)
    return f"predicted speed, relative: {told}{pace}"


def _rounded(rate: float) -> str:
    """Two digits: no prediction is worth more."""
    return f"{float(f'{rate:.2g}'):,.0f}"


def _rest(plan: Plan, inventory: Inventory) -> Iterator[RenderableType]:
    yield Text()
    for line in _cell_lines(plan, inventory.node_gpus):
        yield Text(line)
    yield Text(_forward_line(plan))
    yield Text(_schedule_line(plan))
    yield Text()
    yield _memory_heading(plan, inventory)
    yield _parts(plan.memory)
    if "cpu" in plan.memories and plan.memory_device != "cpu":  # beside GPUs
        beside = plan.memories["cpu"]
        yield _heading(
            "memory of the machine", sum(p.bytes for p in beside), inventory.memory_bytes
        )
        yield _parts(beside)
    yield _heading("disk", plan.disk_bytes, inventory.disk_bytes)
    yield _parts(plan.disk)


def _show_transcoders(console: Console, plan: Plan) -> None:
    apart = differing([t.spec for t in plan.transcoders], but=("k",))
    heads = ("d_in", "d_out", "d_sae", "factor", "k", "memory", "MFLOP/token")
    rows = [
        (
            t.id,
            *words,
            f"{t.d_in:,}",
            f"{t.d_out:,}",
            f"{t.d_sae:,}",
            f"{round(t.expansion, 2):g}x",  # 16x, 31.25x: latents for each dimension of the source
            f"{t.k:,}",
            human_bytes(t.cost.state_bytes),
            _mega(t.cost.flops_per_token),
        )
        for t, *words in zip(plan.transcoders, *apart.values(), strict=True)
    ]
    show_rows(console, ("transcoder", *apart, *heads), rows, left=("group_sizes",))


def _cell_lines(plan: Plan, node_gpus: int | None) -> Iterator[str]:
    yield from _producer_lines(plan.producers, node_gpus)
    if len(plan.cells) == 1 and not plan.producers:
        (cell,) = plan.cells
        yield f"{cell.name}: captures {len(cell.tensors)} tensors, the last at {cell.deepest}"
        return
    most = max(cell.flops_per_token for cell in plan.cells)
    for cell in plan.cells:
        on_gpu = cell.device != "cpu"
        where = f" on {device_names((cell.device,), node_gpus)}" if on_gpu else ""
        blocks = f"{cell.blocks_run} of {plan.forward.n_layers} blocks"
        share = f" ({cell.gpu_share:.0%} of it)" if 0 < cell.gpu_share < 1 else ""
        reads = f"reads {len(cell.tensors)} tensors" if plan.producers else blocks
        beside = f" ({cell.flops_per_token / most:.0%} of the largest)" * (len(plan.cells) > 1)
        yield (
            f"{cell.name}{where}{share}: {_counted(len(cell.transcoders))}, {reads}, "
            f"{_mega(cell.flops_per_token)} MFLOP/token{beside}, {human_bytes(cell.memory_bytes)}"
        )


def _producer_lines(producers: Sequence[ProducerPlan], node_gpus: int | None) -> Iterator[str]:
    """A line for all those in a row that differ in their GPU alone."""
    for share, alike in groupby(producers, key=lambda producer: producer.gpu_share):
        first, *more = alike
        names = f"{first.name} to {more[-1].name}" if more else first.name
        where = device_names([p.device for p in (first, *more)], node_gpus)
        on = "" if first.device == "cpu" else f" on {where}"
        part = f" ({share:.0%} of {'each' if more else 'it'})" if 0 < share < 1 else ""
        each = "each " if more else ""
        yield (
            f"{names}{on}{part}: {each}{len(first.tensors)} tensors, the last at {first.deepest}, "
            f"{_mega(first.flops_per_token)} MFLOP/token, {human_bytes(first.memory_bytes)}"
        )


def _counted(count: int) -> str:
    return "1 transcoder" if count == 1 else f"{count} transcoders"


def _forward_line(plan: Plan) -> str:
    forward, cells = plan.forward, len(plan.cells)
    shared = cells == 1 or plan.producers
    what = f"{forward.blocks_run} of {forward.n_layers} blocks" if shared else "one per cell"
    line = (
        f"forward of {forward.contexts} contexts: {what}, "
        f"{_mega(forward.flops_per_token)} MFLOP/token, {forward.share:.0%} of all"
    )
    if forward.separate_flops_per_token > forward.flops_per_token > 0:
        times = forward.separate_flops_per_token / forward.flops_per_token
        line += (
            f"; separate runs would take {_mega(forward.separate_flops_per_token)} ({times:.1f}x)"
        )
    return line


def _schedule_line(plan: Plan) -> str:
    schedule = plan.schedule
    line = (
        f"training: {schedule.rows:,} rows in {schedule.steps:,} steps; "
        f"{schedule.blocks:,} blocks of {schedule.block_rows:,} rows"
    )
    line = f"{line}; {schedule.reading}" if schedule.reading else line
    forward = plan.forward
    flops = forward.flops_per_token + forward.train_flops_per_token
    return f"{line}; {schedule.rows * flops:.1e} FLOP in all"


def _memory_heading(plan: Plan, inventory: Inventory) -> Text:
    device, several = plan.memory_device, len(plan.memories) > 1
    named = device_names((device,), inventory.node_gpus)
    what = f"memory of the fullest, {named}" if several and device != "cpu" else "memory"
    return _heading(what, plan.memory_bytes, inventory.memory_of(device))


def _heading(what: str, needed: int, there: int | None) -> Text:
    available = "" if there is None else f"; {human_bytes(there)} available"
    return Text(f"{what}: needs about {human_bytes(needed)}{available}")


def _parts(parts: Sequence[Part]) -> Padding:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for part in parts:
        table.add_row(
            human_bytes(part.bytes), f"{part.what} ({part.key})" if part.key else part.what
        )
    return Padding(table, (0, 0, 0, 2), expand=False)


def _mega(count: int) -> str:
    return f"{count / 1e6:,.1f}"
