# SPDX-License-Identifier: Apache-2.0
"""KMeans with the interface of scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from ddkern.checks import as_count
from ddkern.kmeans import assign, quantize
from ddkern.typing import Algorithm, ArrayLike, InitMethod

__all__ = ["KMeans"]

# Restarts that n_init="auto" stands for, as in scikit-learn.
_AUTO_RESTARTS = {"k-means++": 1, "random": 10}


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """K-means clustering: exact, reproducible, with weights that mean repetition.

    A drop-in for ``sklearn.cluster.KMeans`` on dense data. The work is that of
    :func:`ddkern.quantize` with one group; use that function for many groups at once.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters, at most the number of rows of positive weight.
    init : {"k-means++", "random"} or array of shape (n_clusters, n_features)
        Starting centroids.
    n_init : "auto" or int, default="auto"
        Restarts. "auto" is 1 for ``"k-means++"`` and for an array, 10 for ``"random"``.
    max_iter : int, default=300
        Most iterations of a restart.
    tol : float, default=1e-4
        Relative tolerance on the movement of the centroids; 0 for strict convergence.
    random_state : int, RandomState or None, default=None
        An int is the seed of :func:`ddkern.quantize` itself. A RandomState draws a seed for each
        fit. None takes one from the operating system; numpy's global state is never used.
    algorithm : {"auto", "gram", "streaming"}, default="auto"
        How the time is spent; the result is the same.
    n_threads : int or None, default=None
        Most threads to use.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Centroids; float32 for float32 data.
    cluster_weights_ : ndarray of shape (n_clusters,)
        Share of the total sample weight in each cluster; sums to 1.
    labels_ : ndarray of int64, shape (n_samples,)
        Cluster of each training row: exactly what ``predict`` returns for it.
    inertia_ : float
        Weighted sum of the squared distances to the nearest centroid.
    n_iter_ : int
        Iterations of the restart that was kept.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has string column names.

    See Also
    --------
    ddkern.quantize : many groups, more array libraries, the full record of the run.

    Examples
    --------
    >>> import numpy as np
    >>> from ddkern.estimators import KMeans
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [10.0, 2.0], [10.0, 4.0]])
    >>> kmeans = KMeans(n_clusters=2, random_state=0).fit(X)
    >>> bool(kmeans.labels_[0] == kmeans.labels_[1])
    True
    >>> kmeans.inertia_
    4.0
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: InitMethod | ArrayLike = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        algorithm: Algorithm = "auto",
        n_threads: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.algorithm = algorithm
        self.n_threads = n_threads

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,  # noqa: ARG002 - pipelines pass it
        sample_weight: ArrayLike | None = None,
    ) -> KMeans:
        """Cluster the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense, finite.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Finite and at least 0; a weight of 3 means three copies of the row.

        Returns
        -------
        self
        """
        X = validate_data(self, X, ensure_min_samples=1)
        n_samples = X.shape[0]
        n_clusters = as_count("n_clusters", self.n_clusters)
        if n_samples < n_clusters:
            raise ValueError(f"n_samples={n_samples} must be at least n_clusters={n_clusters}")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        result = quantize(
            X,
            n_clusters,
            sample_weight=sample_weight,
            init=self.init,
            n_init=self._restarts(),
            max_iter=self.max_iter,
            tol=self.tol,
            algorithm=self.algorithm,
            random_state=self._seed(),
            n_threads=self.n_threads,
        )
        self.cluster_centers_ = result.centroids
        self.cluster_weights_ = result.weights
        self.labels_ = result.assignment
        self.inertia_ = float(result.inertia.item())
        self.n_iter_ = int(result.n_iter.item())
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Find the nearest centroid of each row, exactly, the lowest index among equals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        labels: NDArray[np.int64] = assign(
            self._checked(X), self.cluster_centers_, n_threads=self.n_threads
        )
        return labels

    def fit_predict(
        self,
        X: ArrayLike,
        y: Any = None,  # noqa: ARG002 - pipelines pass it
        sample_weight: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Cluster the rows of X and return their clusters; see :meth:`fit`."""
        labels: NDArray[np.int64] = self.fit(X, sample_weight=sample_weight).labels_
        return labels

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Euclidean distance of each row to each centroid.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            float32 for float32 data, float64 otherwise.
        """
        X = self._checked(X)
        n_clusters = len(self.cluster_centers_)
        order, distance = assign(
            X,
            self.cluster_centers_,
            n_nearest=n_clusters,
            return_distance=True,
            n_threads=self.n_threads,
        )
        by_cluster = np.empty((len(X), n_clusters), self.cluster_centers_.dtype)
        np.put_along_axis(
            by_cluster, order.reshape(len(X), -1), distance.reshape(len(X), -1), axis=1
        )
        return by_cluster

    def score(
        self,
        X: ArrayLike,
        y: Any = None,  # noqa: ARG002 - pipelines pass it
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Minus the weighted sum of squared distances to the nearest centroid.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
        """
        X = self._checked(X)
        _, distance = assign(
            X, self.cluster_centers_, return_distance=True, n_threads=self.n_threads
        )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -float(np.dot(weight, distance**2))

    def _checked(self, X: ArrayLike) -> Any:
        check_is_fitted(self)
        return validate_data(self, X, reset=False)

    def _restarts(self) -> Any:
        if isinstance(self.n_init, str) and self.n_init == "auto":
            return _AUTO_RESTARTS.get(self.init, 1) if isinstance(self.init, str) else 1
        return self.n_init

    def _seed(self) -> Any:
        if isinstance(self.random_state, np.random.RandomState):
            return int(check_random_state(self.random_state).randint(0, 1 << 64, dtype=np.uint64))
        return self.random_state

    @property
    def _n_features_out(self) -> int:
        return int(self.cluster_centers_.shape[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
