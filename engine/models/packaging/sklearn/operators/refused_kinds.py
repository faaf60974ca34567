"""Estimators of scikit-learn that are known and have no operators, and why."""

from typing import Final

_by_turns = "it looks for the answer to each record in turns, until little changes: use PCA, TruncatedSVD or FactorAnalysis"
_by_batch = "what it makes of a record depends on the others of its batch: use PCA or TruncatedSVD"
_by_neighbours = "it places a record among its neighbours of training: use PCA or KernelPCA"
why_not: Final = {
    "NMF": _by_batch,
    "MiniBatchNMF": _by_batch,
    "LatentDirichletAllocation": _by_turns,
    "DictionaryLearning": _by_turns,
    "MiniBatchDictionaryLearning": _by_turns,
    "SparseCoder": _by_turns,
    "Isomap": _by_neighbours,
    "LocallyLinearEmbedding": _by_neighbours,
    "RadiusNeighborsTransformer": "it makes a column for each row of training: use RadiusNeighborsClassifier or -Regressor",
    "BisectingKMeans": "its clusters are found by halves, and are not always the nearest: use KMeans",
    "DictVectorizer": "it takes a dictionary, and a record has a field for each feature: use the fields as columns, texts behind OneHotEncoder",
    "RandomTreesEmbedding": "it makes a column for each leaf: use a forest",
}
"""By the name of the type: why, and what to use."""
anything_else: Final = "use another step, or compute what it makes before the stream"
instead_of: Final = {
    "FeatureHasher": "use OneHotEncoder or OrdinalEncoder for categories, and TfidfVectorizer(max_features=...) for words",
}
"""What to use, by the name of a type that does not say how many columns it makes."""
