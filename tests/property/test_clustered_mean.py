"""The clustered mean against the plain mean and against the formula written out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.stats import clustered_mean, mean

SCORES = st.sampled_from([0.0, 1.0])
CLUSTERS = st.lists(st.lists(SCORES, min_size=1, max_size=4), min_size=2, max_size=30)


@given(st.lists(SCORES, min_size=2, max_size=50))
def test_clusters_of_one_give_the_plain_mean_and_its_error(scores: list[float]) -> None:
    clustered, plain = clustered_mean([[score] for score in scores], len(scores)), mean(scores, len(scores))
    assert clustered.value == plain.value
    assert clustered.stderr == pytest.approx(plain.stderr)
    assert clustered.ci95 == pytest.approx(plain.ci95)


@given(st.lists(SCORES, min_size=2, max_size=50), st.integers(2, 5))
def test_repeating_every_member_of_a_cluster_adds_no_certainty(scores: list[float], times: int) -> None:
    repeated = clustered_mean([[score] * times for score in scores], len(scores))
    assert repeated.stderr == pytest.approx(mean(scores, len(scores)).stderr)


@given(CLUSTERS)
def test_the_value_is_the_mean_over_members_and_the_error_the_ratio_estimators(clusters: list[list[float]]) -> None:
    found = clustered_mean(clusters, len(clusters))
    members = [score for cluster in clusters for score in cluster]
    value = sum(members) / len(members)
    residuals = [sum(cluster) - value * len(cluster) for cluster in clusters]
    size = len(members) / len(clusters)
    variance = sum(r * r for r in residuals) / (len(clusters) - 1) / len(clusters) / size**2
    assert found.value == pytest.approx(value)
    assert found.stderr == pytest.approx(math.sqrt(variance))
    assert found.n == found.n_items == len(clusters)


@given(CLUSTERS)
def test_a_missing_cluster_withholds_the_value(clusters: list[list[float]]) -> None:
    found = clustered_mean([*clusters, []], len(clusters) + 1)
    assert (found.value, found.n, found.n_items) == (None, len(clusters), len(clusters) + 1)
