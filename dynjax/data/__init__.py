"""Real data that is at hand everywhere, toy tasks, safe loaders of users' files. Everything is a NumPy array."""

from ._digest import sha256 as sha256
from ._digits import digits as digits
from ._load import load as load
from ._standardise import standardise as standardise
from ._subset import Subset as Subset, subset as subset
from ._toys import chebyshev as chebyshev, deep_linear as deep_linear, teacher as teacher
