"""A 95 % interval covers the truth in 93 to 97 of 100 simulations, and has a known answer where there is one."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures.attention import head_distances
from vitcnn_utils.measures.cka import Hsic, centred_gram, cka, hsic, labelled_cka, layer_similarity
from vitcnn_utils.measures.intervals import AT_ONCE, bootstrap, draws_and_images, jackknife, left_out
from vitcnn_utils.measures.receptive_field import effective_receptive_fields
from vitcnn_utils.measures.residual import skip_ratios

RUNS = 1000


def covered(bounds, truth):
    """In how many of 100 runs the truth was between the bounds; bounds: over bound and run."""
    low, high = bounds.transpose("bound", "run").values
    return 100 * np.mean((low <= truth) & (truth <= high))


def same(values):
    return values


# Over images


@pytest.mark.parametrize(("N", "draw"), [(12, "normal"), (32, "normal"), (300, "normal"), (300, "exponential")])
def test_the_bootstrap_of_a_mean_covers_it(N, draw):
    """Few values of a skewed distribution are left out: their mean is not normal, and no percentiles cover it."""
    values = getattr(np.random.default_rng(N), draw)(size=(N, RUNS, 3))
    true = {"normal": 0, "exponential": 1}[draw]
    found = bootstrap(lambda mean: mean.mean("head"), xr.DataArray(values, dims=("sample", "run", "head")))
    assert 93 <= covered(found, true) <= 97


def test_the_bootstrap_of_a_ratio_of_means_covers_it():
    """As claims have it: a nonlinear statistic of several means over the same images."""
    rng = np.random.default_rng(3)
    of_image, of_head = rng.normal(size=(100, RUNS, 1)), rng.normal(size=(100, RUNS, 3))
    values = xr.DataArray([1, 3, 2] + 0.3 * of_image + 0.5 * of_head, dims=("sample", "run", "head"))
    found = bootstrap(lambda mean: mean.max("head") / mean.min("head"), values)
    assert 93 <= covered(found, 3) <= 97


def test_the_bootstrap_is_scipys_but_for_the_widening():
    values = np.random.default_rng(0).normal(size=200)
    ours = bootstrap(same, xr.DataArray(values, dims="sample"), resamples=20_000)
    scipys = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert ours.values == pytest.approx([scipys.low, scipys.high], abs=0.01)


def test_every_resample_counts_whatever_fits_at_once(monkeypatch):
    by_image = xr.DataArray(np.random.default_rng(0).normal(size=(20, 4, 5)), dims=("sample", "y", "x"))
    whole = bootstrap(same, by_image, seed=2)
    monkeypatch.setattr("vitcnn_utils.measures.intervals.AT_ONCE", AT_ONCE // (1 << 19))
    xr.testing.assert_allclose(bootstrap(same, by_image, seed=2), whole)


def test_images_that_are_all_alike_leave_nothing_open():
    found = bootstrap(same, xr.DataArray(np.full((5, 2), 3.0), {"head": [4, 7]}, ("sample", "head")))
    assert found.values == pytest.approx(np.full((2, 2), 3))
    assert found.bound.values.tolist() == ["low", "high"] and found["head"].values.tolist() == [4, 7]


def test_what_is_not_known_stays_unknown():
    by_image = xr.DataArray([[1.0, np.nan], [2, 3], [3, 4]], dims=("sample", "head"))
    found = bootstrap(same, by_image)
    assert np.isnan(found.values).tolist() == [[False, True], [False, True]]


def test_one_image_has_no_interval():
    with pytest.raises(VitcnnError, match="two images or more"):
        bootstrap(same, xr.DataArray([[1.0]], dims=("sample", "head")))


def test_the_interval_of_distances_holds_their_mean(vit):
    heads = head_distances(vit, noise_images(20))
    low, high = bootstrap(same, heads.distance_by_image)
    np.testing.assert_allclose(heads.distance_by_image.mean("sample"), heads.distance, rtol=1e-6)
    assert (low < heads.distance).all() and (heads.distance < high).all()


# Over groups of images


def test_the_jackknife_over_groups_covers_a_ratio_of_means():
    rng = np.random.default_rng(4)
    values = xr.DataArray(rng.normal([1, 3, 2], 1, (110, RUNS, 3)), dims=("sample", "run", "head"))
    found = jackknife(lambda mean: mean.max("head") / mean.min("head"), left_out(values))
    assert 93 <= covered(found, 3) <= 97


def test_means_without_each_group_of_images(vit):
    ratios = skip_ratios(vit, noise_images(10))
    found = left_out(ratios, groups=3)
    assert found.ratio.dims == ("left_out", "block", "branch", "token")
    np.testing.assert_allclose(found.ratio.sel(left_out=-1), ratios.ratio, rtol=1e-6)
    np.testing.assert_allclose(found.ratio.sel(left_out=0), ratios.ratio_by_image[4:].mean("sample"), rtol=1e-6)
    assert "ratio_by_image" not in found and found.cosine_sum.dims == ratios.cosine_sum.dims
    assert found.attrs == ratios.attrs and found.ratio.attrs == ratios.ratio.attrs


def test_fields_by_image_are_the_field(resnet):
    images = noise_images(6)
    fields = effective_receptive_fields(resnet, images, ["stem"], channels=2)
    by_image = effective_receptive_fields(resnet, images, ["stem"], channels=2, by_image=True)
    assert by_image.dims == ("sample", "layer", "y", "x") and by_image.dtype == np.float32
    xr.testing.assert_allclose(left_out(by_image).sel(left_out=-1, drop=True), fields, rtol=1e-6)
    assert left_out(by_image).sizes["left_out"] == 7
    assert by_image.attrs == fields.attrs


def test_parts_of_other_images_have_no_common_interval():
    one, other = (left_out(xr.DataArray(np.zeros((n, 2)), dims=("sample", "head"))) for n in (5, 6))
    with pytest.raises(VitcnnError, match="all of as many parts"):
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


def test_the_jackknife_of_cka_covers_the_true_one():
    batches, size = 5, 20
    rng = np.random.default_rng(0)
    scale = np.array([1, 1.3, 1.6, 2])
    # y = x + e, with known covariances: HSIC of (x, y), (x, x), (y, y) go as their squared norms.
    true = (scale**4).sum() / np.sqrt((scale**4).sum() * ((scale**2 + 1) ** 2).sum())
    parts = []
    for _ in range(batches):
        x = scale * rng.normal(size=(RUNS, size, 4))
        y = x + rng.normal(size=x.shape)
        parts.append(hsic(*(torch.stack([centred_gram(torch.from_numpy(one)) for one in v]) for v in (x, y))))
    found = jackknife(same, labelled_cka(parts, ("x", "y"), left_out=True))
    same_run = xr.DataArray(np.arange(RUNS), dims="run")
    assert 93 <= covered(found.isel(x=same_run, y=same_run), true) <= 97


def test_the_jackknife_of_a_mean_is_students_t():
    rng = np.random.default_rng(0)
    batches = rng.normal(size=6)
    without = [np.delete(batches, i).mean() for i in range(6)]
    values = xr.DataArray([batches.mean(), *without], {"left_out": np.arange(-1, 6)}, "left_out")
    expected = stats.t.interval(0.95, 5, batches.mean(), stats.sem(batches))
    assert jackknife(same, values).values == pytest.approx(expected)


def test_maps_without_each_minibatch(vit, resnet):
    images = noise_images(30)
    found = layer_similarity(vit, resnet, images, 10, vit.blocks, resnet.blocks, left_out=True)
    assert found.dims == ("left_out", "layer_a", "layer_b")
    assert found.left_out.values.tolist() == [-1, 0, 1, 2]
    whole = layer_similarity(vit, resnet, images, 10, vit.blocks, resnet.blocks)
    xr.testing.assert_equal(found.sel(left_out=-1, drop=True), whole)
    assert np.unique(found.mean(("layer_a", "layer_b")).values.round(6)).size == 4
    low, high = jackknife(lambda cka: cka.mean(), found)
    assert low < whole.mean() < high


def test_a_map_without_a_minibatch_is_that_of_the_others():
    rng = np.random.default_rng(0)
    parts = [Hsic(rng.uniform(size=(2, 3)), rng.uniform(size=2), rng.uniform(size=3)) for _ in range(4)]
    found = labelled_cka(parts, ("a", "b"), left_out=True)
    np.testing.assert_allclose(found.sel(left_out=1), cka([parts[0], *parts[2:]]))
    np.testing.assert_allclose(found.sel(left_out=-1), cka(parts))


def test_one_minibatch_has_no_interval(vit):
    with pytest.raises(VitcnnError, match="two or more minibatches: give more images or a smaller batch_size"):
        layer_similarity(vit, vit, noise_images(8), left_out=True)
