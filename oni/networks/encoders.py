"""From observations to features."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from envs.spec import EnvSpec, ObsSpec
from oni.config import NetworkConfig
from oni.errors import ConfigError

_RELU_GAIN = np.sqrt(2.0)


class VectorEncoder(nn.Module):
    """A dense layer over a flat vector of numbers."""

    size: int

    @nn.compact
    def __call__(self, obs: Array) -> Float[Array, "N size"]:
        x = obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        return nn.relu(nn.Dense(self.size, kernel_init=nn.initializers.orthogonal(_RELU_GAIN))(x))


class CellConv(nn.Module):
    """A convolution of a few cells a side, stride 1, without padding: `nn.Conv` with the same parameters.

    It is one matrix product over patches. On CPU the gradient of a convolution inside a loop, as learning is, takes 27
    times as long (XLA of jaxlib 0.10, 4,096 grids of 10x10x4, 16 features: 1.28 s instead of 0.05 s).
    """

    features: int
    side: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "N h w C"]) -> Float[Array, "N h2 w2 features"]:
        side, channels = self.side, x.shape[-1]
        init = nn.initializers.orthogonal(_RELU_GAIN)
        kernel = self.param("kernel", init, (side, side, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        height, width = (size - side + 1 for size in x.shape[1:3])
        shifts = [(row, column) for row in range(side) for column in range(side)]
        patches = jnp.concatenate([x[:, row : row + height, column : column + width] for row, column in shifts], -1)
        return patches @ kernel.reshape(-1, self.features) + bias


_ATARI_SIDE_PX = 36
"""Shortest side for which the three convolutions of a big picture leave a cell."""


class PictureEncoder(nn.Module):
    """Convolutions over a picture, then a dense layer. Pixels `uint8` count as shares of 255, all else as it is.

    Grids of a few cells (MinAtar) get one convolution of 3x3 (Young & Tian, arXiv 1903.03176), bigger pictures the
    three of the Atari network (Mnih et al., Nature 518, 2015). Channels come last.
    """

    size: int

    @nn.compact
    def __call__(self, obs: Array) -> Float[Array, "N size"]:
        x = obs.astype(jnp.float32) / (255.0 if obs.dtype == jnp.uint8 else 1.0)
        if min(obs.shape[1:3]) < _ATARI_SIDE_PX:
            return VectorEncoder(size=self.size)(nn.relu(CellConv(16, name="Conv_0")(x)))
        for features, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            init = nn.initializers.orthogonal(_RELU_GAIN)
            conv = nn.Conv(features, (kernel, kernel), strides=stride, padding="VALID", kernel_init=init)
            x = nn.relu(conv(x))
        return VectorEncoder(size=self.size)(x)


def _embed_cells(module: nn.Module, obs: Array, num_values: tuple[int, ...], embed_size: int) -> Array:
    """Embeds each cell by its categories, with one table for each channel among the parameters of `module`.

    The embedding of a cell is `relu(sum over channels of table[channel][category])`. It is computed once for every
    combination of categories and looked up, which on CPU is four times faster than one-hot matrix products.
    """
    table = jnp.zeros(embed_size)
    index = jnp.zeros(obs.shape[:-1], jnp.int32)
    for channel, categories in enumerate(num_values):
        init = nn.initializers.normal(stddev=1.0)
        embedding = module.param(f"embedding_{channel}", init, (categories, embed_size))
        table = (table.reshape(-1, 1, embed_size) + embedding[None]).reshape(-1, embed_size)
        index = index * categories + obs[..., channel]
    return nn.relu(table)[index]


class CellEmbedding(nn.Module):
    """Embeds each cell of a grid.

    num_values: categories of each channel. embed_size: features of a cell.
    """

    num_values: tuple[int, ...]
    embed_size: int

    @nn.compact
    def __call__(self, obs: Array) -> Float[Array, "N ... embed_size"]:
        return _embed_cells(self, obs, self.num_values, self.embed_size)


class GridEncoder(nn.Module):
    """Embeds each cell by its categories, then a dense layer over all cells.

    num_values: categories of each channel. embed_size: features of a cell.
    """

    size: int
    num_values: tuple[int, ...]
    embed_size: int

    @nn.compact
    def __call__(self, obs: Array) -> Float[Array, "N size"]:
        cells = _embed_cells(self, obs, self.num_values, self.embed_size).reshape(obs.shape[0], -1)
        return nn.relu(nn.Dense(self.size, kernel_init=nn.initializers.orthogonal(_RELU_GAIN))(cells))


class NamedEncoder(nn.Module):
    """Observations by name: grids are embedded cell by cell, pictures convolved, numbers taken as they are.

    One dense layer over all.

    num_values: categories of each channel by name, for those observations that are grids of categories.
    """

    size: int
    num_values: Mapping[str, tuple[int, ...]]
    embed_size: int

    @nn.compact
    def __call__(self, obs: Mapping[str, Array]) -> Float[Array, "N size"]:
        parts: list[Array] = []
        for name, leaf in sorted(obs.items()):
            if name in self.num_values:
                cells = CellEmbedding(num_values=self.num_values[name], embed_size=self.embed_size, name=name)(leaf)
            elif leaf.ndim == _PICTURE_AXES + 1:
                cells = PictureEncoder(size=self.size, name=name)(leaf)
            else:
                cells = leaf.astype(jnp.float32)
            parts.append(cells.reshape(leaf.shape[0], -1))
        dense = nn.Dense(self.size, kernel_init=nn.initializers.orthogonal(_RELU_GAIN))
        return nn.relu(dense(jnp.concatenate(parts, axis=1)))


class MapEncoder(nn.Module):
    """NetHack's screen: convolutions over the crop around the hero and over the whole map, the message, the status.

    Reads `crop [N, h, w, 2]`, `map [N, H, W, 2]` (characters and colours), `message [N, L, 1]` and `status [N, S]`.
    """

    size: int
    num_values: Mapping[str, tuple[int, ...]]
    embed_size: int

    @nn.compact
    def __call__(self, obs: Mapping[str, Array]) -> Float[Array, "N size"]:
        def embed(name: str) -> Array:
            return CellEmbedding(num_values=self.num_values[name], embed_size=self.embed_size, name=name)(obs[name])

        def convolve(x: Array, features: int, kernel: tuple[int, ...], stride: int) -> Array:
            init = nn.initializers.orthogonal(_RELU_GAIN)
            return nn.relu(nn.Conv(features, kernel, strides=stride, kernel_init=init)(x))

        def dense(x: Array, features: int) -> Array:
            flat = x.reshape(x.shape[0], -1)
            return nn.relu(nn.Dense(features, kernel_init=nn.initializers.orthogonal(_RELU_GAIN))(flat))

        crop = convolve(convolve(embed("crop"), 32, (3, 3), 1), 64, (3, 3), 1)
        whole = convolve(convolve(convolve(embed("map"), 32, (3, 3), 2), 64, (3, 3), 2), 64, (3, 3), 2)
        text = convolve(convolve(embed("message"), 64, (7,), 4), 64, (5,), 4)
        parts = [dense(crop, 256), dense(whole, 256), dense(text, 128), dense(obs["status"], 128)]
        return dense(jnp.concatenate(parts, axis=1), self.size)


_PICTURE_AXES = 3
"""Height, width, channels: numbers with as many axes are a picture."""

_MAP_OBS = ("crop", "map", "message", "status")


def make_encoder(config: NetworkConfig, spec: EnvSpec) -> nn.Module:
    """Creates the encoder that fits an environment's observations.

    Raises:
        ConfigError: `large` is asked for where there is no map.
    """
    size, embed_size = config.hidden_size, config.embed_size
    named = isinstance(spec.obs, Mapping)
    if config.encoder == "large" and not (named and all(name in spec.obs for name in _MAP_OBS)):
        raise ConfigError(
            f"network.encoder large reads a map and messages, which {spec.id} does not give: "
            "use network.encoder small, or for NetHack env.options.observation full"
        )
    if isinstance(spec.obs, ObsSpec):
        if spec.obs.num_values is None:
            return PictureEncoder(size=size) if len(spec.obs.shape) == _PICTURE_AXES else VectorEncoder(size=size)
        return GridEncoder(size=size, num_values=spec.obs.num_values, embed_size=embed_size)
    num_values = {name: obs.num_values for name, obs in spec.obs.items() if obs.num_values is not None}
    encoder = MapEncoder if config.encoder == "large" else NamedEncoder
    return encoder(size=size, num_values=num_values, embed_size=embed_size)
