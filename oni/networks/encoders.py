"""From observations to features."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_RELU_GAIN = np.sqrt(2.0)


class VectorEncoder(nn.Module):
    """A dense layer over a flat vector of numbers."""

    size: int

    @nn.compact
    def __call__(self, obs: Array) -> Float[Array, "N size"]:
        x = obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        return nn.relu(nn.Dense(self.size, kernel_init=nn.initializers.orthogonal(_RELU_GAIN))(x))


class GridEncoder(nn.Module):
    """Embeds each cell by its categories, then a dense layer over all cells.

    The embedding of a cell is `relu(sum over channels of table[channel][category])`. It is computed once for every
    combination of categories and looked up, which on CPU is four times faster than one-hot matrix products.

    num_values: categories of each channel. embed_size: features of a cell.
    """

    size: int
    num_values: tuple[int, ...]
    embed_size: int

    @nn.compact
    def __call__(self, obs: Array) -> Float[Array, "N size"]:
        table = jnp.zeros(self.embed_size)
        index = jnp.zeros(obs.shape[:-1], jnp.int32)
        for channel, categories in enumerate(self.num_values):
            init = nn.initializers.normal(stddev=1.0)
            embedding = self.param(f"embedding_{channel}", init, (categories, self.embed_size))
            table = (table.reshape(-1, 1, self.embed_size) + embedding[None]).reshape(-1, self.embed_size)
            index = index * categories + obs[..., channel]
        cells = nn.relu(table)[index].reshape(obs.shape[0], -1)
        return nn.relu(nn.Dense(self.size, kernel_init=nn.initializers.orthogonal(_RELU_GAIN))(cells))
