"""Flower's side of a message: a packet to a RecordDict and back.

All arrays of a packet travel as one blob in safetensors form: it keeps dtype and shape exactly and holds nothing that
runs, and Flower moves every array of a record in requests of its own.
"""

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from safetensors.numpy import load, save

from protocol.messages import Packet


def packet_to_recorddict(packet: Packet) -> RecordDict:
    """Make Flower's records of a packet."""
    arrays = {name: np.asarray(array, order="C") for name, array in packet.arrays.items()}
    blob = np.frombuffer(save(arrays), dtype=np.uint8)
    return RecordDict(
        {
            "arrays": ArrayRecord({"safetensors": Array(blob)}),
            "metrics": MetricRecord({**packet.metrics}),
            "config": ConfigRecord({**packet.config}),
        }
    )


def recorddict_to_packet(record: RecordDict) -> Packet:
    """Read what ``packet_to_recorddict`` made."""
    blob = record.array_records["arrays"]["safetensors"].numpy()
    metrics: Any = dict(record.metric_records["metrics"])
    config: Any = dict(record.config_records["config"])
    return Packet(load(blob.tobytes()), metrics, config)
