"""What do I see? Pictures of graphs, of neurons that read images, and of runs.

`drawing` draws a small graph as SVG by way of `svg`. `portrait` shows what neurons respond to, `plotting` the course of a run;
both need matplotlib. `inspection` computes the tables of `Model.inspect` and `Model.ablate`.
"""

from mlgraph.pictures.drawing import Drawing
from mlgraph.pictures.plotting import LivePicture, NoDisplayError, training_picture
from mlgraph.pictures.portrait import Portrait, draw, portraits

__all__ = ["Drawing", "LivePicture", "NoDisplayError", "Portrait", "draw", "portraits", "training_picture"]
