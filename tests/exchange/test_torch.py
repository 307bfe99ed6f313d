"""PyTorch judges: the same outputs and gradients in both, and masks that stay."""

import copy
import pickle
import re
import sys

import numpy as np
import pytest

import mlgraph
from mlgraph import exchange

torch = pytest.importorskip("torch")
nn, prune = torch.nn, pytest.importorskip("torch.nn.utils.prune")

ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
X = np.random.default_rng(0).normal(size=(33, 5)).astype(np.float32)
LABELS = np.arange(33) % 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def run(module, x=X):
    with torch.no_grad():
        outputs = module.eval()(torch.tensor(x)).numpy()
    module.train()
    return outputs


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def network(activation="tanh", last="softmax", seed=0, **options):
    net = mlgraph.Network(5, seed=seed)
    net.add_layer(7, activation, **options)
    net.add_layer(4, activation)
    net.add_layer(3, last)
    for layer in net.layers:
        layer.weights, layer.biases = 2 * layer.weights, np.linspace(-0.5, 0.5, layer.size)
    return net


def sequential(activation=nn.Tanh, *last):
    return nn.Sequential(nn.Linear(5, 7), activation(), nn.Linear(7, 4), activation(), nn.Linear(4, 3), *last)


def pruned(module, amount=0.6):
    for linear in module:
        if isinstance(linear, nn.Linear):
            prune.l1_unstructured(linear, "weight", amount)
    return module


def compare_gradients(net, module):
    """One backward pass of the mean cross-entropy in both, compared for each weight and bias that there is."""
    module.zero_grad()
    nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(LABELS)).backward()
    gradients = net.gradients(X, LABELS)
    linears = [child for child in module if isinstance(child, nn.Linear)]
    for layer, linear in zip(net.layers, linears, strict=True):
        theirs = dict(linear.named_parameters())
        weight = theirs.get("weight", theirs.get("weight_orig")).grad.numpy()
        for j, neuron in enumerate(layer):
            columns = [layer.source_ids.index(source.id) for source in neuron.sources]
            close(gradients.of(neuron), weight[j, columns])
            close(gradients.of_bias(neuron), linear.bias.grad.numpy()[j])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_from_torch_gives_the_outputs_and_gradients_of_pytorch(name):
    module = pruned(sequential(ACTIVATIONS[name]), 0.3)
    net = exchange.from_torch(module, loss="softmax_cross_entropy")
    assert [layer.activation for layer in net.layers] == [name, name, "softmax"]
    close(net.forward(X), run(module))
    compare_gradients(net, module)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_to_torch_gives_the_outputs_and_gradients_of_the_network(name):
    net = network(name)
    net.prune(0.5)
    module = exchange.to_torch(net)
    close(run(module), net.forward(X))
    compare_gradients(net, module)


@pytest.mark.parametrize(
    ("last", "loss", "activation", "expected_loss"),
    [
        ([], None, "identity", "squared_error"),
        ([], "mse", "identity", "mse"),
        ([], "softmax_cross_entropy", "softmax", "softmax_cross_entropy"),
        ([], "binary_cross_entropy", "sigmoid", "binary_cross_entropy"),
        ([nn.Softmax(dim=1)], None, "softmax", "softmax_cross_entropy"),
        ([nn.Softmax(dim=-1)], None, "softmax", "softmax_cross_entropy"),
        ([nn.LogSoftmax(dim=1)], None, "softmax", "softmax_cross_entropy"),
        ([nn.Sigmoid()], None, "sigmoid", "squared_error"),
        ([nn.Sigmoid()], "binary_cross_entropy", "sigmoid", "binary_cross_entropy"),
        ([nn.Tanh()], None, "tanh", "squared_error"),
    ],
)
def test_the_end_of_a_module_and_the_loss_decide_on_the_last_layer(last, loss, activation, expected_loss):
    module = sequential(nn.ReLU, *last)
    net = exchange.from_torch(module, loss=loss)
    assert (net.layers[-1].activation, net.loss) == (activation, expected_loss)
    theirs = run(module)
    if not last or expected_loss in ("squared_error", "mse"):
        close(net.forward(X), theirs)
    else:
        close(net.predict_proba(X), np.exp(theirs) if isinstance(last[0], nn.LogSoftmax) else theirs)


@pytest.mark.parametrize(
    ("last", "loss"),
    [("identity", "mse"), ("sigmoid", "squared_error"), ("softmax", None), ("sigmoid", "binary_cross_entropy")],
)
def test_a_network_comes_back_from_pytorch(last, loss):
    net = mlgraph.Network(5, seed=0)
    net.add_layer(7, "elu", dropout=0.25, bias=False)
    net.add_layer(6, "softmax")
    net.add_layer(3, last, loss=loss)
    net.prune(0.3)
    back = exchange.from_torch(exchange.to_torch(net), loss=net.loss)
    assert back.loss == net.loss and str(back) == str(net)
    for mine, theirs in zip(net.layers, back.layers, strict=True):
        assert np.array_equal(mine.weights, theirs.weights) and np.array_equal(mine.mask, theirs.mask)
        assert np.array_equal(mine.biases, theirs.biases, equal_nan=True) and mine.dropout == theirs.dropout


# --- masks ----------------------------------------------------------------------------------------


def test_masked_weights_become_cut_edges_whatever_their_value():
    module = pruned(sequential())
    net = exchange.from_torch(module)
    for layer, linear in zip(net.layers, module[::2], strict=True):
        assert np.array_equal(layer.mask, linear.weight_mask.numpy() == 1)
    assert net.n_edges < 0.5 * exchange.from_torch(sequential()).n_edges


def test_weights_are_those_of_the_last_step_which_a_pruned_module_has_not_computed_yet():
    module = pruned(sequential())
    with torch.no_grad():
        module[0].weight_orig += 1  # as a step of an optimizer; module[0].weight follows at the next call
    net = exchange.from_torch(module)
    close(net.forward(X), run(module))


def test_training_in_pytorch_keeps_the_holes():
    net = network()
    net.prune(0.6)
    module = exchange.to_torch(net)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(LABELS)).backward()
        optimizer.step()
    trained = exchange.from_torch(module, loss="softmax_cross_entropy")
    assert trained.n_edges == net.n_edges
    for before, after in zip(net.layers, trained.layers, strict=True):
        assert np.array_equal(before.mask, after.mask) and not np.allclose(before.weights, after.weights)
    close(trained.forward(X), run(module))


def test_zeros_are_edges_unless_they_are_to_be_cut():
    module = pruned(sequential(nn.ReLU), 0.5)
    masked = exchange.from_torch(module)
    for linear in module[::2]:
        prune.remove(linear, "weight")
    dense, cut = exchange.from_torch(module), exchange.from_torch(module, cut_zeros=True)
    assert dense.n_edges == 5 * 7 + 7 * 4 + 4 * 3
    assert cut.n_edges == masked.n_edges < dense.n_edges
    close(dense.forward(X), run(module))
    close(cut.forward(X), run(module))


@pytest.mark.parametrize("bias", [True, False])
def test_a_neuron_without_edges_becomes_a_bias_of_the_next_layer(bias):
    module = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3, bias=bias), nn.Tanh(), nn.Linear(3, 2))
    mask = torch.ones(4, 5)
    mask[1] = 0
    prune.custom_from_mask(module[0], "weight", mask)
    alone = torch.ones(3, 4)
    alone[2] = torch.tensor([0, 1, 0, 0])  # neuron 2 reads nothing but the constant one
    prune.custom_from_mask(module[2], "weight", alone)
    net = exchange.from_torch(module)
    close(net.forward(X), run(module))
    assert repr(net) == "<Network 5-4-3-2: 25 edges; 3 of 4 neurons of layer 0 alive; 2 of 3 neurons of layer 1 alive>"


def test_missing_biases_are_masked_and_stay_away():
    net = network()
    net.layers[0][2].bias = None
    module = exchange.to_torch(net)
    close(run(module), net.forward(X))
    compare = exchange.from_torch(module, loss="softmax_cross_entropy")
    assert compare.layers[0][2].bias is None and compare.layers[0][1].bias is not None


# --- everything else that a module has ------------------------------------------------------------


def test_dropout_flatten_and_nested_modules():
    module = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.1), nn.ReLU(inplace=True), nn.Identity()),
        nn.Sequential(nn.Linear(7, 4), nn.Sequential(nn.Tanh(), nn.Dropout(0.3))),
        nn.Linear(4, 3),
    )
    net = exchange.from_torch(module)
    assert [layer.dropout for layer in net.layers] == [0.1, 0.3, 0]
    close(net.forward(X), run(module))


def test_a_state_dict_with_its_activations():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(5, 7), nn.Linear(7, 4, bias=False), nn.Linear(4, 3)
            prune.random_unstructured(self.first, "weight", 0.5)

        def forward(self, x):
            return self.third(torch.sigmoid(self.second(torch.relu(self.first(x)))))

    module = Net()
    net = exchange.from_torch(module.state_dict(), activation=["relu", "sigmoid", "identity"])
    close(net.forward(X), run(module))
    same = exchange.from_torch(module.state_dict(), activation="silu", loss="softmax_cross_entropy")
    assert [layer.activation for layer in same.layers] == ["silu", "silu", "softmax"]
    assert not net.frozen
    with pytest.raises(ValueError, match="the Sequential inside it may be one, or pass its state_dict"):
        exchange.from_torch(module)


def test_other_precisions_and_parametrizations():
    close(exchange.from_torch(sequential().double()).forward(X), run(sequential_seeded()))
    module = sequential()
    nn.utils.parametrizations.weight_norm(module[0])
    with torch.no_grad():
        module[0].parametrizations.weight.original0 *= 2
    close(exchange.from_torch(module).forward(X), run(module))
    assert exchange.from_torch(nn.Linear(5, 2).bfloat16()).n_edges == 10


def sequential_seeded():
    torch.manual_seed(0)
    return sequential()


@pytest.mark.parametrize("scaling", ["bytes", (np.arange(5.0), np.full(5, 4.0))])
def test_scaling_goes_along_and_comes_back(scaling, tmp_path):
    net = network()
    net.scaling = scaling
    module = exchange.to_torch(net)
    data = np.random.default_rng(0).integers(0, 256, (9, 5)).astype(np.uint8)
    close(run(module, data), net.forward(data))
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    close(run(loaded, data), net.forward(data))
    back = exchange.from_torch(pickle.loads(pickle.dumps(module)), loss=net.loss)
    assert np.array_equal(back.scaling, scaling)
    close(back.forward(data), net.forward(data))


def test_numbers_are_read_as_pytorch_reads_them():
    module = sequential()
    data = np.random.default_rng(0).integers(0, 256, (9, 5)).astype(np.uint8)
    np.testing.assert_allclose(exchange.from_torch(module).forward(data), run(module, data.astype("f")), rtol=1e-4)


def test_frozen_parameters():
    module = sequential()
    module[0].requires_grad_(False)
    module[2].bias.requires_grad_(False)
    net = exchange.from_torch(module, loss="softmax_cross_entropy")
    before = [layer.weights for layer in net.layers], [layer.biases for layer in net.layers]
    net.fit(X, LABELS, epochs=1)
    after = [layer.weights for layer in net.layers], [layer.biases for layer in net.layers]
    changed = [
        [not np.array_equal(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)
    ]
    assert changed == [[False, True, True], [False, False, True]]
    again = exchange.to_torch(net)
    assert [p.requires_grad for p in again.parameters()] == [False, False, True, False, True, True]


def test_a_pruned_module_can_be_copied():
    net = network()
    net.prune(0.5)
    module = exchange.to_torch(net)
    close(run(copy.deepcopy(module)), net.forward(X))


def test_to_torch_leaves_pytorchs_random_numbers_alone():
    before = torch.get_rng_state()
    exchange.to_torch(network())
    assert torch.equal(torch.get_rng_state(), before)


# --- refusals -------------------------------------------------------------------------------------


def linears(*between):
    return nn.Sequential(nn.Linear(5, 4), *between, nn.Linear(4, 3))


def shared():
    linear = nn.Linear(5, 5)
    return nn.Sequential(linear, nn.ReLU(), linear)


def masked_output():
    module = linears()
    mask = torch.ones(3, 4)
    mask[1] = 0
    prune.custom_from_mask(module[1], "weight", mask)
    return module


def infinite():
    module = linears()
    with torch.no_grad():
        module[1].weight[0, 0] = torch.inf
    return module


STATE = {"a.weight": torch.ones(4, 5), "b.weight": torch.ones(3, 4)}


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (lambda: linears(nn.BatchNorm1d(4)), {}, r"module 1 \(BatchNorm1d\): expected a Sequential of Linear, Dropout"),
        (lambda: linears(nn.ReLU6()), {}, r"module 1 \(ReLU6\): expected"),
        (lambda: linears(nn.AlphaDropout()), {}, r"module 1 \(AlphaDropout\): expected"),
        (lambda: linears(nn.LeakyReLU(0.2)), {}, r"module 1 \(LeakyReLU\): expected negative_slope=0.01, got 0.2"),
        (lambda: linears(nn.ELU(0.5)), {}, r"module 1 \(ELU\): expected alpha=1.0, got 0.5"),
        (lambda: linears(nn.GELU("tanh")), {}, r"module 1 \(GELU\): expected approximate=none, got tanh"),
        (lambda: linears(nn.Softplus(2)), {}, r"module 1 \(Softplus\): expected beta=1.0, got 2"),
        (lambda: linears(nn.Softmax(dim=0)), {}, r"module 1 \(Softmax\): expected dim=1, got 0"),
        (lambda: linears(nn.LogSoftmax(dim=1)), {}, "module 2 .Linear.: expected nothing after module 1 .LogSoftmax."),
        (lambda: linears(nn.ReLU(), nn.Tanh()), {}, r"module 2 \(Tanh\): expected one activation after module 0"),
        (lambda: linears(nn.Dropout(0.1), nn.Tanh()), {}, r"module 2 \(Tanh\): expected Dropout after it"),
        (lambda: linears(nn.Dropout(0.1), nn.Dropout(0.1)), {}, r"module 2 \(Dropout\): expected one Dropout after"),
        (lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 2)), {}, "module 0 .Dropout.: expected a Linear before"),
        (lambda: nn.Sequential(nn.Flatten()), {}, "module: expected at least one Linear, got none"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)), {}, r"module 1 \(Linear\): expected 3 columns"),
        (shared, {}, r"module 2 \(Linear\): the same Linear is there before; layers cannot share weights"),
        (masked_output, {}, "module: layer 1 neuron 1 is cut off from all inputs"),
        (infinite, {}, "module: expected finite weights of layer 1, got inf"),
        (linears, {"activation": "relu"}, "activation: expected None, because the module has its own"),
        (lambda: STATE, {}, "activation: a state_dict does not have it; pass that of the hidden layers, or a list"),
        (lambda: STATE, {"activation": ["relu"]}, "activation: expected 2 activations, one for each of a, b"),
        (lambda: STATE, {"activation": "swish"}, "activation: expected one of .*; here it is silu"),
        (lambda: STATE | {"b.mean": torch.ones(3)}, {"activation": "relu"}, "state_dict b: expected weight and bias"),
        (lambda: {"a.weight_orig": torch.ones(4, 5)}, {"activation": "relu"}, "state_dict a: expected weight_orig and"),
        (lambda: {"a.weight": torch.ones(4, 5, 2)}, {"activation": "relu"}, "state_dict a: expected a weight of"),
        (dict, {"activation": "relu"}, "state_dict: expected weights of at least one Linear, got none"),
        (lambda: sequential(nn.ReLU, nn.Softmax(dim=1)), {"loss": "mse"}, "loss after softmax: expected softmax"),
    ],
)  # fmt: skip
def test_from_torch_refuses_by_name(module, options, message):
    with pytest.raises(ValueError, match=message):
        exchange.from_torch(module(), **options)


def with_another_activation(net):
    net.layers[1][2].activation = "relu"


def with_a_jump(net):
    net.graph.add_edge(net.graph[0], net.layers[1][2])


def with_dropped_edges(net):
    net.layers[1].weight_dropout = 0.5


def with_some_frozen(net):
    net.layers[1][2].in_edges[0].frozen = True


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_another_activation, "layer 1 neuron 2 is a relu neuron in a layer of tanh neurons"),
        (with_a_jump, "layer 1 neuron 2 reads n0, which is not in the layer before"),
        (with_dropped_edges, "layer 1 has weight_dropout 0.5, for which PyTorch has no module"),
        (with_some_frozen, "only some weights of layer 1 are frozen"),
    ],
)
def test_to_torch_refuses_by_name(edit, message):
    net = network()
    edit(net)
    with pytest.raises(ValueError, match=re.escape(f"to_torch: {message}")):
        exchange.to_torch(net)


def test_only_networks_with_layers_go_to_torch():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, mlgraph.exp(g.add_input()))
    for wrong, error in ((model, TypeError), (g, TypeError), (mlgraph.Network(3), ValueError)):
        with pytest.raises(error, match=r"expected (a Network, got (Model|Graph)|at least one layer)"):
            exchange.to_torch(wrong)
    with pytest.raises(TypeError, match=r"module: expected a torch.nn.Sequential or a state_dict, got int"):
        exchange.from_torch(3)


def test_without_pytorch_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (lambda: exchange.to_torch(network()), lambda: exchange.from_torch({}, activation="relu")):
        with pytest.raises(ImportError, match=r"_torch needs PyTorch \(.*\): pip install torch"):
            call()
