"""HW40x: what replaces, moves or removes pods."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import BREAKS, DELETE, NOTE, RISKS, Change, Found, Severity, Swap, rule
from ..model import Model
from ..place import Object, Place
from ..units import say
from ..workloads import STARTUP, Workload


def _target(model: Model, object: Object, reference: Place) -> Workload | None:
    name, kind = reference.get("name").text, reference.get("kind").text or "Deployment"
    for workload in model.streaming:
        if (
            workload.object.name == name
            and workload.object.kind == kind
            and workload.object.namespace == object.namespace
        ):
            return workload
    return None


@rule("HW401", "all-pods-at-once", RISKS, 13)
def all_pods_at_once(model: Model) -> Iterator[Found]:
    """A rollout ends all pods before, or while, it starts the new ones.

    Source: Kubernetes, "Deployments", "Strategy": Recreate: "All existing Pods are killed before new ones are created";
    maxUnavailable.
    """
    for workload in model.streaming:
        object, replicas = workload.object, workload.replicas
        if object.kind != "Deployment":
            continue
        strategy = object.at("spec", "strategy", "type")
        if strategy.text == "Recreate" and replicas > 1:
            yield Found(
                strategy,
                f"Recreate with {replicas} replicas: each rollout cuts the streams of all pods, and nobody can take"
                " them over until the first new one is ready; then all reconnect at once",
                (
                    Change(
                        object.at("spec", "strategy"),
                        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                        "One pod after the other; its clients find room on the others.",
                    ),
                )
                if not workload.pod.get("volumes") or not _claims(workload)
                else (),
            )
        place = object.at("spec", "strategy", "rollingUpdate", "maxUnavailable")
        gone = _share(place.text, replicas)
        if strategy.text != "Recreate" and gone is not None and gone >= replicas and replicas > 0:
            yield Found(
                place,
                f"maxUnavailable {place.text} of {replicas} replicas is all of them: each rollout cuts every stream"
                " at once",
                (Change(place, 0, "A new pod is ready before an old one goes."),),
            )


def _claims(workload: Workload) -> bool:
    return any(volume.get("persistentVolumeClaim") for volume in workload.pod.get("volumes").items())


def _share(text: str | None, replicas: int) -> int | None:
    """A number or a percentage of replicas, rounded down as Kubernetes does for maxUnavailable."""
    if text is None:
        return None
    if text.endswith("%") and text[:-1].isdigit():
        return replicas * int(text[:-1]) // 100
    return int(text) if text.isdigit() else None


@rule("HW402", "deadline-before-the-start", NOTE, 3)
def deadline_before_the_start(model: Model) -> Iterator[Found]:
    """The startup probe allows more time than the rollout's deadline.

    Source: Kubernetes, "Deployments", progressDeadlineSeconds (600): then the rollout is reported as failed.
    """
    for workload in model.streaming:
        place = workload.object.at("spec", "progressDeadlineSeconds")
        deadline = place.integer(600)
        for container in workload.containers:
            probe = container.probes.get(STARTUP)
            if probe is not None and workload.object.kind == "Deployment" and probe.patience > deadline:
                yield Found(
                    place,
                    f"the start may take {probe.initial} + {probe.failures} × {probe.period} = {probe.patience} s,"
                    f" and the rollout is reported as stuck after {deadline} s",
                    (Change(place, probe.patience + 300, "Above the startup probe's budget."),),
                )


@rule("HW403", "disruption-budget-that-blocks", BREAKS, 9)
def disruption_budget_that_blocks(model: Model) -> Iterator[Found]:
    """A PodDisruptionBudget allows no eviction at all, so no node can be drained.

    Source: Kubernetes, "Specifying a Disruption Budget for your Application": "If you set maxUnavailable to 0% or 0, or
    you set minAvailable to 100% or the number of replicas, you are requiring zero voluntary evictions. […] then you
    cannot successfully drain a Node running one of those Pods."
    """
    for budget in model.kind("PodDisruptionBudget"):
        workloads = _guarded(model, budget)
        if not workloads:
            continue
        replicas = min(_least(model, workload) for workload in workloads)
        most, least = budget.at("spec", "maxUnavailable"), budget.at("spec", "minAvailable")
        why = "Each time one pod: its clients find room on the others."
        if most.text in ("0", "0%"):
            yield Found(
                most,
                f"maxUnavailable {most.text}: no pod may ever be evicted, so draining its node waits for ever, until"
                " somebody deletes pods by hand, and with them all streams at once",
                (Change(most, 1, why),),
            )
        elif least:
            share = (least.text or "").removesuffix("%")
            percent = share != least.text and share.isdigit()
            kept = -(-replicas * int(share) // 100) if percent else least.integer(0)
            if kept < replicas or not replicas:
                continue
            yield Found(
                least,
                f"minAvailable {least.text} of {replicas} replicas leaves none to evict: draining a node waits for"
                " ever, until somebody deletes pods by hand",
                (Change(least, Swap("maxUnavailable", 1), why),),
                _blocks(model, workloads, replicas),
            )


def _blocks(model: Model, workloads: list[Workload], replicas: int) -> Severity:
    """Where an autoscaler may have more pods, it blocks only while there are few."""
    return BREAKS if all(_scaler(model, workload) is None for workload in workloads) else RISKS


def _guarded(model: Model, budget: Object) -> list[Workload]:
    if budget.at("spec", "selector", "matchExpressions"):
        return []
    labels = {key: place.text for key, place in budget.at("spec", "selector", "matchLabels").entries()}
    return [
        workload
        for workload in model.streaming
        if labels and labels.items() <= workload.labels.items() and workload.object.namespace == budget.namespace
    ]


def _scaler(model: Model, workload: Workload) -> Object | None:
    for scaler in model.kind("HorizontalPodAutoscaler", "ScaledObject"):
        if _target(model, scaler, scaler.at("spec", "scaleTargetRef")) is workload:
            return scaler
    return None


def _least(model: Model, workload: Workload) -> int:
    """The fewest pods that there are: an autoscaler's minimum, else the replicas."""
    scaler = _scaler(model, workload)
    if scaler is None:
        return workload.replicas
    key = "minReplicas" if scaler.kind == "HorizontalPodAutoscaler" else "minReplicaCount"
    return scaler.at("spec", key).integer(1 if key == "minReplicas" else 0)


@rule("HW404", "scale-down-cuts-streams", RISKS, 13)
def scale_down(model: Model) -> Iterator[Found]:
    """An autoscaler may remove all surplus pods at once.

    Source: Kubernetes, "Horizontal Pod Autoscaling", "Default behavior": scaleDown has a stabilization window of 300 s
    and one policy, "which allows a 100% of the currently running replicas to be removed" each 15 s.
    """
    for scaler in model.kind("HorizontalPodAutoscaler", "ScaledObject"):
        workload = _target(model, scaler, scaler.at("spec", "scaleTargetRef"))
        if workload is None:
            continue
        keda = scaler.kind == "ScaledObject"
        behavior = (
            scaler.at("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior")
            if keda
            else scaler.at("spec", "behavior")
        )
        least = scaler.at("spec", "minReplicaCount" if keda else "minReplicas").integer(0 if keda else 1)
        most = scaler.at("spec", "maxReplicaCount" if keda else "maxReplicas").integer(100 if keda else 1)
        down = behavior.get("scaleDown")
        if most <= max(least, 1) or _slowly(down):
            continue
        yield Found(
            down,
            f"{_said(down)}: {say(down.get('stabilizationWindowSeconds').integer(300))} after a peak all surplus pods"
            f" (up to {most} - {least} = {most - least}) may go so quickly that their clients all reconnect at once",
            (
                Change(
                    down,
                    {
                        "stabilizationWindowSeconds": 600,
                        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
                    },
                    "One pod in five minutes: all clients of a pod that leaves reconnect.",
                ),
            ),
        )


def _said(down: Place) -> str:
    """What stands there, or Kubernetes' default: 100 % in 15 s."""
    share, period = "100", "15"
    for policy in down.get("policies").items():
        if policy.get("type").text == "Percent":
            share, period = policy.get("value").text or share, policy.get("periodSeconds").text or period
    default = "" if down.get("policies") else "no policy, so " if down else "not set, so "
    return f"{default}{share} % in {period} s"


def _slowly(down: Place) -> bool:
    """True if no policy lets half of the pods, or more, go within a minute. Without a policy all may."""
    if down.get("selectPolicy").text == "Disabled":
        return True
    policies = list(down.get("policies").items())
    quick = [
        policy
        for policy in policies
        if policy.get("type").text == "Percent"
        and policy.get("value").integer(0) >= 50
        and policy.get("periodSeconds").integer(0) <= 60
    ]
    return bool(policies) and (not quick or (down.get("selectPolicy").text == "Min" and len(quick) < len(policies)))


@rule("HW405", "scaled-by-cpu", NOTE, 13)
def scaled_by_cpu(model: Model) -> Iterator[Found]:
    """An autoscaler looks at CPU or memory only, which idle streams hardly use.

    Source: docs/scaling.md: an open stream costs memory and no CPU; Kubernetes, "Horizontal Pod Autoscaling",
    "Scaling on custom metrics".
    """
    for scaler in model.kind("HorizontalPodAutoscaler"):
        if _target(model, scaler, scaler.at("spec", "scaleTargetRef")) is None:
            continue
        metrics = list(scaler.at("spec", "metrics").items())
        names = [
            metric.get("resource", "name").text or metric.get("containerResource", "name").text for metric in metrics
        ]
        if metrics and not all(names):
            continue
        if not metrics and not scaler.at("spec", "targetCPUUtilizationPercentage"):
            continue
        place = scaler.at("spec", "metrics") if metrics else scaler.at("spec", "targetCPUUtilizationPercentage")
        yield Found(
            place,
            "scaled by CPU or memory: thousands of quiet streams use next to none, so pods are removed while"
            " full, and added when it is too late",
            advice="Scale by open streams for each pod (a Pods metric).",
        )


@rule("HW406", "scaled-to-zero", RISKS, 13)
def scaled_to_zero(model: Model) -> Iterator[Found]:
    """KEDA may remove the last pod, and with it every open stream.

    Source: KEDA, "ScaledObject specification", minReplicaCount: "Minimum number of replicas KEDA will scale the
    resource down to. By default, it's scale to zero"; cooldownPeriod 300 s.
    """
    for scaler in model.kind("ScaledObject"):
        if _target(model, scaler, scaler.at("spec", "scaleTargetRef")) is None:
            continue
        place, idle = scaler.at("spec", "minReplicaCount"), scaler.at("spec", "idleReplicaCount")
        if idle.text == "0":
            place = idle
        elif place.integer(0) > 0:
            continue
        cooldown = scaler.at("spec", "cooldownPeriod").integer(300)
        yield Found(
            place,
            f"{'0' if place else 'not set, so 0'}: {cooldown} s after the last activity that its triggers see, the"
            " last pod goes; open streams that are quiet are none, and are cut",
            (Change(place, DELETE if place is idle else 1, "One pod holds the streams that are quiet."),),
        )


@rule("HW407", "vertical-autoscaler-evicts", RISKS, 9)
def vertical_autoscaler(model: Model) -> Iterator[Found]:
    """A VerticalPodAutoscaler restarts pods to give them other requests.

    Source: Kubernetes autoscaler, VPA, "Quick start", updateMode: Auto and Recreate evict running pods; the default is
    Auto.
    """
    for scaler in model.kind("VerticalPodAutoscaler"):
        if _target(model, scaler, scaler.at("spec", "targetRef")) is None:
            continue
        place = scaler.at("spec", "updatePolicy", "updateMode")
        mode = place.text or "Auto"
        if mode in ("Auto", "Recreate"):
            yield Found(
                place,
                f"updateMode {mode}{'' if place else ' (the default)'}: pods are evicted whenever the recommendation"
                " changes, and all of their streams with them",
                (Change(place, "Off", "Recommendations only: acting on them would restart pods, and their streams."),),
            )
