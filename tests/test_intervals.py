"""A 95 % interval covers the truth in 93 to 97 of 100 simulations, and has a known answer where there is one."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from textbook import noise_images

from vitcnn_utils.claims.ledger import estimate
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures.cka import Hsic, cka, labelled_cka, layer_similarity
from vitcnn_utils.measures.intervals import draws_and_images, jackknife, left_out
from vitcnn_utils.measures.receptive_field import effective_receptive_fields
from vitcnn_utils.measures.residual import skip_ratios

RUNS = 1000


def covered(bounds, truth):
    """In how many of 100 runs the truth was between the bounds; bounds: over bound and run."""
    low, high = bounds.transpose("bound", "run").values
    return 100 * np.mean((low <= truth) & (truth <= high))


# Over groups of images


STATISTICS = {
    "mean": (lambda mean: mean.mean("head"), [1, 2, 3], 2),
    "ratio": (lambda mean: mean.max("head") / mean.min("head"), [1, 2, 3], 3),  # as of two receptive fields
    "nearest": (lambda mean: mean.min("head"), [1, 1, 3], 1),  # two heads are alike
    "median": (lambda mean: mean.median("head"), [1, 2, 3], 2),
}


def same(values):
    return values


@pytest.mark.parametrize("N", [21, 32, 110])  # groups of 1 or 2, and of 5 or 6 images
@pytest.mark.parametrize("name", STATISTICS)
def test_the_jackknife_over_groups_covers_statistics_of_claims(name, N):
    statistic, means, true = STATISTICS[name]
    values = np.random.default_rng(N).normal(means, 0.5, (N, RUNS, 3))
    found = jackknife(statistic, left_out(xr.DataArray(values, dims=("sample", "run", "head"))))
    assert 93 <= covered(found, true) <= 97


def test_the_jackknife_covers_the_mean_of_skewed_values():
    values = np.random.default_rng(0).exponential(size=(110, RUNS))
    assert 93 <= covered(jackknife(same, left_out(xr.DataArray(values, dims=("sample", "run")))), 1) <= 97


def test_the_jackknife_covers_the_difference_of_two_accuracies_on_the_same_images():
    random = np.random.default_rng(0)
    hard = random.uniform(size=(400, RUNS))  # what is hard for one model is hard for both
    first, second = (
        xr.DataArray((hard + random.normal(0, 0.2, hard.shape) < share).astype(float), dims=("sample", "run"))
        for share in (0.8, 0.7)
    )
    truth = float((first - second).mean())
    found = jackknife(lambda a, b: a - b, left_out(first), left_out(second))
    assert 93 <= covered(found, truth) <= 97
    apart = np.hypot(*((jackknife(same, left_out(one)).diff("bound")[0]).mean() for one in (first, second)))
    assert found.diff("bound").mean() < 0.8 * apart, "narrower than for different images"


@pytest.mark.parametrize("N", [12, 100])
def test_the_jackknife_of_a_mean_is_scipys_t_interval(N):
    values = np.random.default_rng(0).normal(size=N)
    found = jackknife(same, left_out(xr.DataArray(values, dims="sample"), groups=N))
    assert found.values == pytest.approx(stats.t.interval(0.95, N - 1, values.mean(), stats.sem(values)))


def test_what_is_alike_leaves_nothing_open_and_what_is_not_known_stays_unknown():
    found = jackknife(same, left_out(xr.DataArray(np.full((5, 2), 3.0), {"head": [4, 7]}, ("sample", "head"))))
    assert found.values == pytest.approx(np.full((2, 2), 3))
    assert found.bound.values.tolist() == ["low", "high"] and found["head"].values.tolist() == [4, 7]
    by_image = xr.DataArray([[1.0, np.nan], [2, 3], [3, 4]], dims=("sample", "head"))
    assert np.isnan(jackknife(same, left_out(by_image)).values).tolist() == [[False, True], [False, True]]


def test_means_without_each_group_of_images(vit):
    ratios = skip_ratios(vit, noise_images(10))
    found = left_out(ratios, groups=3)
    assert found.ratio.dims == ("left_out", "block", "branch", "token")
    np.testing.assert_allclose(found.ratio.sel(left_out=-1), ratios.ratio, rtol=1e-6)
    np.testing.assert_allclose(found.ratio.sel(left_out=0), ratios.ratio_by_image[4:].mean("sample"), rtol=1e-6)
    assert "ratio_by_image" not in found and found.cosine_sum.dims == ratios.cosine_sum.dims
    assert found.attrs == ratios.attrs and found.ratio.attrs == ratios.ratio.attrs


def test_fields_without_some_images_are_the_fields_of_the_others(resnet):
    images = noise_images(6)
    how = {"layers": ["stem"], "channels": None}
    fields = effective_receptive_fields(resnet, images, **how)
    parted = effective_receptive_fields(resnet, images, **how, left_out=True)
    assert parted.dims == ("left_out", "layer", "y", "x") and parted.sizes["left_out"] == 7
    assert parted.attrs == fields.attrs
    xr.testing.assert_allclose(parted.sel(left_out=-1, drop=True), fields, rtol=1e-6)
    others = effective_receptive_fields(resnet, images[np.array([0, 1, 3, 4, 5])], **how)
    xr.testing.assert_allclose(parted.sel(left_out=2, drop=True), others, rtol=1e-5)


def test_parts_of_other_images_have_no_common_interval():
    one, other = (left_out(xr.DataArray(np.zeros((n, 2)), dims=("sample", "head"))) for n in (5, 6))
    with pytest.raises(VitcnnError, match="as many in all"):
        jackknife(lambda a, b: a - b, one, other)
    with pytest.raises(VitcnnError, match="arrays with left_out"):
        jackknife(same, xr.DataArray([1.0], dims="head"))
    with pytest.raises(VitcnnError, match="two images or more"):
        left_out(xr.DataArray([[1.0]], dims=("sample", "head")))


# Over draws of shots and test images


@pytest.mark.parametrize("of_draws", [0.015, 0.03])
def test_the_interval_over_draws_and_test_images_covers_the_accuracy(of_draws):
    """Draws and images vary, and each pair of them besides, as right and wrong answers do."""
    rng = np.random.default_rng(0)
    draws, images = rng.normal(0, of_draws, (RUNS, 5, 1)), rng.normal(0, 0.35, (RUNS, 1, 200))
    right = 0.5 + draws + images + rng.normal(0, 0.3, (RUNS, 5, 200))
    dims = ("run", "draw", "sample")
    probes = xr.Dataset({"accuracy": (dims[:2], right.mean(-1)), "accuracy_by_image": (dims, right)})
    found = draws_and_images(lambda one: one["accuracy"].mean("draw"), left_out(probes))
    assert 93 <= covered(found, 0.5) <= 97


def test_the_interval_over_draws_alone_is_students_t():
    values = np.array([0.1, 0.2, 0.4])
    found = draws_and_images(lambda one: one["accuracy"].mean("draw"), xr.Dataset({"accuracy": ("draw", values)}))
    assert found.values == pytest.approx(stats.t.interval(0.95, 2, values.mean(), stats.sem(values)))
    same_draws = xr.Dataset({"accuracy": ("draw", np.ones(3))})
    assert draws_and_images(lambda one: one["accuracy"].mean("draw"), same_draws).values.tolist() == [1, 1]


# Over minibatches


def grams(features):
    """Of many runs at once, (run, n, p): U-centred Gram matrices, (run, n, n), as `centred_gram` makes them for one."""
    K = features @ features.swapaxes(1, 2)
    n = K.shape[1]
    diagonal = np.eye(n, dtype=bool)
    K[:, diagonal] = 0
    rows = K.sum(2, keepdims=True) / (n - 2)
    K += -rows - rows.swapaxes(1, 2) + rows.sum((1, 2), keepdims=True) / (n - 1)
    K[:, diagonal] = 0
    return K / np.sqrt(n * (n - 3))


def test_the_jackknife_of_cka_covers_the_true_one_and_a_difference_of_two():
    batches, size = 5, 20
    rng = np.random.default_rng(0)
    scale = np.array([1, 1.3, 1.6, 2])
    # y = x + e and z = x + 2 e, with known covariances: HSIC of (x, y), (x, x), … go as their squared norms.
    true = [(scale**4).sum() / np.sqrt((scale**4).sum() * ((scale**2 + noise) ** 2).sum()) for noise in (1, 4)]
    parts = {"y": [], "z": []}
    for _ in range(batches):
        x = scale * rng.normal(size=(RUNS, size, 4))
        noise = rng.normal(size=x.shape)
        K, *others = map(grams, (x, x + noise, x + 2 * noise))
        for found, L in zip(parts.values(), others, strict=True):
            found.append(Hsic(np.diag((K * L).sum((1, 2))), (K * K).sum((1, 2)), (L * L).sum((1, 2))))
    run = xr.DataArray(np.arange(RUNS), dims="run")
    with_y, with_z = (labelled_cka(found, ("x", "other"), left_out=True).isel(x=run, other=run)
                      for found in parts.values())  # fmt: skip
    assert 93 <= covered(jackknife(same, with_y), true[0]) <= 97
    assert 93 <= covered(jackknife(lambda a, b: a - b, with_y, with_z), true[0] - true[1]) <= 97


def test_maps_without_each_minibatch(vit, resnet):
    images = noise_images(30)
    found = layer_similarity(vit, resnet, images, 10, vit.blocks, resnet.blocks, left_out=True)
    assert found.dims == ("left_out", "layer_a", "layer_b")
    assert found.left_out.values.tolist() == [-1, 0, 1, 2]
    whole = layer_similarity(vit, resnet, images, 10, vit.blocks, resnet.blocks)
    xr.testing.assert_equal(found.sel(left_out=-1, drop=True), whole)
    rng = np.random.default_rng(0)
    parts = [Hsic(rng.uniform(size=(2, 3)), rng.uniform(size=2), rng.uniform(size=3)) for _ in range(4)]
    found = labelled_cka(parts, ("a", "b"), left_out=True)
    np.testing.assert_allclose(found.sel(left_out=1), cka([parts[0], *parts[2:]]))
    np.testing.assert_allclose(found.sel(left_out=-1), cka(parts))


def test_one_minibatch_has_no_interval(vit):
    found = layer_similarity(vit, vit, noise_images(8), left_out=True)
    assert found.left_out.values.tolist() == [-1]
    assert estimate(lambda cka: float(cka.mean()), found).interval is None
    with pytest.raises(VitcnnError, match="of two or more parts"):
        jackknife(lambda cka: cka.mean(), found)
