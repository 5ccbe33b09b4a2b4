"""Event files for TensorBoard, written without TensorFlow."""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


class Scalars:
    """Writes numbers into an event file of its own.

    tensorboardX's SummaryWriter does so in a thread; once it has ended, as on a full disk, a program waits for ever.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / 'events'))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes {name: value} of a step to disk."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        self._events.close()
