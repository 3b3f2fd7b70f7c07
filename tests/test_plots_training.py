"""The figures of the zoo's page, from logs with and without what older trainings did not note."""

import numpy as np

from vitcnn_utils.plots import training

OLD = [{"epoch": i, "step": 100 * i, "train_accuracy": 0.1 * i} for i in (1, 2, 3)]
NEW = [{**row, "held_out_accuracy": 0.2, "head_distances": [[16.0, 14.0 - row["epoch"]], [15.0, 13.5]]} for row in OLD]


def test_learning_curves_have_a_panel_a_group_and_held_out_accuracy_where_there_is_one():
    figure = training.learning_curves({"ViT": {"zoo/old": OLD, "zoo/new": NEW}, "ResNet": {"zoo/cnn": OLD}})
    assert "zoo/old 0.30, zoo/new 0.30, held-out 0.20, zoo/cnn 0.30." in figure.alt
    assert len(figure.drawing.axes) == 2
    np.testing.assert_allclose(figure.drawing.axes[0].lines[0].get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(figure.drawing.axes[0].lines[3].get_ydata(), [0.2] * 3)


def test_distances_have_a_panel_a_block():
    figure = training.distances_over_training("zoo/new", NEW)
    assert len(figure.drawing.axes) == 2
    np.testing.assert_allclose(figure.drawing.axes[0].lines[1].get_ydata(), [13, 12, 11])
    assert "block 0 13.0 and 11.0 px, block 1 13.5 and 13.5 px." in figure.alt
