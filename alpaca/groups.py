"""The table of configuration schemas: group -> variant -> dataclass."""

from __future__ import annotations

import functools

from alpaca import config, teachers

VARIANTS: dict[str, dict[str, type]] = {
    "data_gen": {
        "alpaca": config.AlpacaDataGen,
        "self_instruct": config.SelfInstructDataGen,
        "reanswer": config.ReanswerDataGen,
        "evolve": config.EvolveDataGen,
        "released": config.ReleasedDataGen,
        "mixture": config.MixtureDataGen,
    },
    "teacher": {name: kind.options for name, kind in teachers.KINDS.items()},
    "cluster": {"local": config.Cluster, "debug": config.Cluster, "slurm": config.SlurmCluster},
    "model": {"tiny": config.TinyModel, "hub": config.HubModel},
    "optimizer": {
        "adamw": config.AdamW,
        "adamw8bit": config.AdamW8bit,
        "muon": config.Muon,
        "adafactor": config.Adafactor,
        "sgd": config.SGD,
    },
}
"""Groups whose options differ in their fields; `kind` in the configuration names the variant."""

SINGLE: dict[str, type] = {
    "run": config.Run,
    "data": config.Data,
    "train": config.Train,
    "precision": config.Precision,
    "fsdp": config.Fsdp,
    "tracker": config.Tracker,
}
"""Groups with one schema."""


@functools.cache
def register() -> None:
    """Puts every schema into Hydra's store below `schema/`, where the YAML files of conf/ pick them up."""
    from hydra.core.config_store import ConfigStore  # a worker reads the table without Hydra

    store = ConfigStore.instance()
    # Hydra copies the whole store for every question about a group, a hundred times for one --help. Nodes are copied
    # again when they are loaded, so the store itself can be shared.
    ConfigStore.__deepcopy__ = lambda self, memo: self
    for name, node in SINGLE.items():
        store.store(group="schema", name=name, node=node)
    for group, variants in VARIANTS.items():
        for name, node in variants.items():
            store.store(group=f"schema/{group}", name=name, node=node)
