"""What do I see? Pictures of graphs, of training runs and of neurons, and tables of what neurons do.

`Drawing` is the picture of a graph: `drawing` chooses boxes and edges, `svg` places them.
`draw_training` and `LivePicture` (`plotting`) show a training run; `neuron_portraits` and
`draw_portraits` (`portrait`) show what neurons respond to. Both need matplotlib. `inspection`
computes the tables of `Model.inspect` and `Model.ablation_table`.
"""

from mlgraph.pictures.drawing import Drawing
from mlgraph.pictures.plotting import LivePicture, NoDisplayError, draw_training
from mlgraph.pictures.portrait import Portrait, draw_portraits, neuron_portraits

__all__ = [
    "Drawing",
    "LivePicture",
    "NoDisplayError",
    "Portrait",
    "draw_portraits",
    "draw_training",
    "neuron_portraits",
]
