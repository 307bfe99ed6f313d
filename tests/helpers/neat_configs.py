"""Configurations of neat-python, of the version that is installed."""

import itertools
import re

import neat

OPTIONS = """
[NEAT]
fitness_criterion = max
fitness_threshold = 1e9
no_fitness_termination = True
pop_size = 20
reset_on_extinction = True

[DefaultGenome]
num_inputs = 3
num_outputs = 2
num_hidden = 0
feed_forward = True
initial_connection = partial_direct 0.7
compatibility_disjoint_coefficient = 1.0
compatibility_weight_coefficient = 0.5
conn_add_prob = 0.7
conn_delete_prob = 0.2
node_add_prob = 0.6
node_delete_prob = 0.1
activation_default = random
activation_mutate_rate = 0.3
activation_options = sigmoid
aggregation_default = random
aggregation_mutate_rate = 0.3
aggregation_options = sum
bias_init_mean = 0.0
bias_init_type = gaussian
bias_init_stdev = 1.0
bias_max_value = 30.0
bias_min_value = -30.0
bias_mutate_power = 0.5
bias_mutate_rate = 0.7
bias_replace_rate = 0.1
response_init_mean = 1.0
response_init_type = gaussian
response_init_stdev = 0.5
response_max_value = 30.0
response_min_value = -30.0
response_mutate_power = 0.3
response_mutate_rate = 0.5
response_replace_rate = 0.1
weight_init_mean = 0.0
weight_init_type = gaussian
weight_init_stdev = 1.5
weight_max_value = 30
weight_min_value = -30
weight_mutate_power = 0.5
weight_mutate_rate = 0.8
weight_replace_rate = 0.1
enabled_default = True
enabled_mutate_rate = 0.1

enabled_rate_to_true_add = 0.0
enabled_rate_to_false_add = 0.0
single_structural_mutation = False
structural_mutation_surer = default

[DefaultSpeciesSet]
compatibility_threshold = 3.0

[DefaultStagnation]
species_fitness_func = max
max_stagnation = 20
species_elitism = 2

[DefaultReproduction]
elitism = 2
survival_threshold = 0.2
min_species_size = 2
"""
IS_OLD = not hasattr(neat, "InnovationTracker")
CONNECTED = {
    "initial_connection": "full_direct",
    "conn_delete_prob": 0,
    "node_delete_prob": 0,
    "enabled_mutate_rate": 0,
}
"""Options of genomes without nodes that no enabled connection leads to."""


def configuration(path, **options):
    """A configuration, with other values for some options; `path` is a folder for its file."""
    text = OPTIONS
    for name, value in options.items():
        value = " ".join(value) if isinstance(value, list | tuple) else value
        text, found = re.subn(rf"^{name} *=.*$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert found == 1, name
    file = path / "neat.ini"
    file.write_text(text)
    kinds = neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet, neat.DefaultStagnation
    config = neat.Config(*kinds, str(file))
    if not IS_OLD:
        config.genome_config.innovation_tracker = neat.InnovationTracker()
    return config


def random_genome(config, mutations, key=1):
    """A genome after mutations by neat-python, which draws from Python's `random`."""
    genome = neat.DefaultGenome(key)
    genome.configure_new(config.genome_config)
    for _ in itertools.repeat(None, mutations):
        genome.mutate(config.genome_config)
    return genome
