"""Event files for TensorBoard, written without TensorFlow."""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


class Scalars:
    """Writes scalars to its own event file, without a thread.

    The SummaryWriter of tensorboardX writes in a thread. If that thread ends, as on a full disk, the program waits
    forever.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / 'events'))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes the values of a step, {name: value}, to disk."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        self._events.close()
