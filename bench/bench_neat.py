"""Genomes of neat-python: conversion, compilation, and the evaluation of a population, in turns with neat-python."""

import random
import time

import numpy as np
import pytest

import mlgraph
from mlgraph import exchange

neat = pytest.importorskip("neat")

from neat_configs import configuration, random_genome  # noqa: E402

N_INPUTS, N_GENOMES, N_ROWS = 6, 150, 1000


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return configuration(
        tmp_path_factory.mktemp("neat"),
        num_inputs=N_INPUTS,
        activation_options=["sigmoid", "tanh", "relu"],
        initial_connection="full_direct",
        conn_add_prob=0.9,
        conn_delete_prob=0.1,
        enabled_mutate_rate=0.02,
    )


def genomes(config, sizes):
    """Genomes by neat-python's mutations, with these numbers of enabled connections."""
    random.seed(0)
    config.genome_config.node_indexer = None
    found = []
    for size in sizes:
        genome = random_genome(config, 0)
        while genome.size()[1] < size:
            genome.mutate(config.genome_config)
        enabled = [connection for connection in genome.connections.values() if connection.enabled]
        for connection in random.sample(enabled, len(enabled) - size):
            connection.enabled = False
        found.append(genome)
    return found


@pytest.mark.benchmark(group="a genome of 30 connections")
@pytest.mark.parametrize("until", ["model", "first output"])
def bench_neat_conversion(benchmark, note, config, until):
    """From a genome to its model, or to the outputs of the first row, which includes the compilation."""
    (genome,) = genomes(config, [30])
    x = np.ones((1, N_INPUTS), np.float32)

    def convert():
        model = exchange.from_neat(genome, config)
        return model.forward(x) if until == "first output" else model

    result = benchmark.pedantic(convert, rounds=50, iterations=10, warmup_rounds=5)
    outputs = result if until == "first output" else result.forward(x)
    expected = neat.nn.FeedForwardNetwork.create(genome, config).activate([1.0] * N_INPUTS)
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-4, atol=1e-5)
    note(nodes=genome.size()[0])


@pytest.mark.benchmark(group="150 genomes on 1,000 inputs")
def bench_neat_population(benchmark, note, config):
    """A generation: conversion, compilation and outputs. Before each round, neat-python takes its turn."""
    population = genomes(config, np.random.default_rng(0).integers(10, 61, N_GENOMES))
    x = np.random.default_rng(1).normal(size=(N_ROWS, N_INPUTS)).astype(np.float32)
    rows, theirs, expected = x.tolist(), [], []

    def turn_of_neat_python():
        begin = time.perf_counter()
        networks = [neat.nn.FeedForwardNetwork.create(genome, config) for genome in population]
        expected[:] = [[network.activate(row) for row in rows] for network in networks]
        theirs.append(time.perf_counter() - begin)

    def evaluate():
        return mlgraph.Population(exchange.from_neat(genome, config) for genome in population).forward(x)

    evaluate()
    outputs = benchmark.pedantic(evaluate, setup=turn_of_neat_python, rounds=5)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
    connections = [genome.size()[1] for genome in population]
    ours = benchmark.stats.stats
    note(connections=f"{min(connections)} to {max(connections)}, mean {np.mean(connections):.0f}")
    note(neat_python=min(theirs), neat_python_median=float(np.median(theirs)))
    note(times_as_fast=min(theirs) / ours.min, times_as_fast_by_median=float(np.median(theirs)) / ours.median)
