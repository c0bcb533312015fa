"""What was chosen, said to people: each setting with its reason, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator

from amn_dist.commands.init.choices import CPU_SHARE, EPOCHS, PUBLISHED_LONG, Plan


def cautions(plan: Plan) -> list[str]:
    """What is not as it should be, loudest first."""
    said = []
    if not plan.pretrained:
        said.append(
            f"NO PRETRAINED WEIGHTS were found ({plan.weights.looked}): networks are small and learn from nothing, "
            "masks will be poor; give --weights FOLDER, or let torchvision download resnet50 once"
        )
    if plan.train.long > 2 * PUBLISHED_LONG:
        said.append(
            f"images of {plan.train.long} pixels: networks are made for about {PUBLISHED_LONG}, and a crop of "
            f"{plan.crop} sees little of them; pack copies of about 1000 pixels"
        )
    if len(plan.train.classes) == 2:
        said.append("one class: the classifier learns nothing unless there are images without it, too")
    if plan.train.count < 50:
        said.append(f"{plan.train.count} images are few to learn from")
    if plan.val is None:
        said.append("no set to predict on (--val): the trained network is not tried, `amn predict` can use it")
    return said


def reasons(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """What was chosen, with its value and why, for people."""
    train, machine = plan.train, plan.machine
    yield "classes", str(len(train.classes) - 1), ", ".join(train.classes[1:4]) + (", ..." * (len(train.classes) > 4))
    yield "images", str(train.count), f"sides {train.least} to {train.most}, middle {train.long}x{train.short} pixels"
    yield "val", "none" if plan.val is None else f"{plan.val.count} images", "" if plan.val else "--val was not given"
    source = plan.weights.by_backbone.get(plan.backbone)
    yield "backbone", plan.backbone, source or f"no weights in {plan.weights.looked}"
    where = "a GPU trains" if machine.devices else f"{CPU_SHARE} of the long side: no GPU"
    yield "crop", f"{plan.crop}, {plan.odd_crop}", where
    for stage in (stage.name for stage in plan.stages if stage.verb == "fit"):
        micro = plan.micro_batch(stage, plan.network_name(stage))
        of = f"{plan.steps(stage)} steps of {plan.batch(stage)}" + (f" ({micro} at once)" if micro else "")
        yield stage, of, _why_epochs(plan, stage)
    yield "scales", " ".join(f"{scale:g}" for scale in plan.scales), "as published" if machine.devices else "no GPU"
    gpus = f"{machine.devices} GPUs of {machine.device_gib:.0f} GiB" if machine.devices else "no GPU"
    workers = str(plan.workers) if plan.workers else "one a core"
    yield "workers", workers, f"{machine.cores} cores, {machine.memory_gib:.0f} GiB, {gpus}"


def _why_epochs(plan: Plan, stage: str) -> str:
    epochs = plan.epochs(stage)
    if epochs == EPOCHS[stage]:
        return f"{epochs} epochs, as published"
    why = "no GPU" if epochs < EPOCHS[stage] else "a small set"
    return f"{epochs} epochs (published: {EPOCHS[stage]}), {why}"
