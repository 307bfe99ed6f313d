"""``python -m mlgraph`` says what to call instead."""

import sys

if __name__ == "__main__":
    sys.exit(
        "mlgraph is a library: import mlgraph.\n"
        "Its application trains, prunes and inspects networks on MNIST: python -m mlgraph.mnist --help"
    )
