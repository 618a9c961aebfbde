import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from dynjax import sweep
from dynjax.sweep._state import previous

DTYPES = ["float32", "float16", "bfloat16", "int32", "int8", "uint32", "bool", "complex64", "float8_e4m3fn"]


@st.composite
def arrays(draw):
    dtype = jnp.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    size = int(np.prod(shape)) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype.kind == "b":
        return jnp.asarray(np.frombuffer(data, np.uint8).reshape(shape) % 2 == 1)
    return jnp.asarray(np.frombuffer(data, dtype).reshape(shape))


@st.composite
def keys(draw):
    impl = draw(st.sampled_from(["threefry2x32", "rbg"]))
    key = jax.random.key(draw(st.integers(0, 2**31 - 1)), impl=impl)
    return key if draw(st.booleans()) else jnp.broadcast_to(key, (draw(st.integers(0, 3)),))


names = st.text(max_size=6) | st.sampled_from(["a/b", "../x", "file", "meta", "meta.npy", "", "'", '"]["', "\x00", "ä"])
pytrees = st.recursive(
    arrays() | keys() | st.none(),
    lambda children: (
        st.lists(children, max_size=3) | st.tuples(children) | st.dictionaries(names, children, max_size=3)
    ),
    max_leaves=5,
)


def raw(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(tree=pytrees)
def test_any_pytree_comes_back_as_it_was(tmp_path, tree):
    file = tmp_path / "0.npz"
    sweep.save_state(file, tree, {"config_hash": "abc", "n": 3})
    template = jax.eval_shape(lambda: tree)
    back, meta = sweep.load_state(file, template, {"config_hash": "abc"})
    assert meta == {"config_hash": "abc", "n": 3}
    assert jax.tree_util.tree_structure(back) == jax.tree_util.tree_structure(tree)
    for one, two in zip(jax.tree_util.tree_leaves(tree), jax.tree_util.tree_leaves(back), strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert raw(one).tobytes() == raw(two).tobytes()


STATE = {"x": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(3), "n": jnp.zeros((), jnp.int32)}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({**STATE, "more": jnp.zeros(2)}, {}),
        ({"x": STATE["x"], "key": STATE["key"]}, {}),
        ({"y": STATE["x"], "key": STATE["key"], "n": STATE["n"]}, {}),
        ({**STATE, "x": jnp.zeros((3, 2))}, {}),
        ({**STATE, "x": jnp.zeros((2, 3), jnp.int32)}, {}),
        ({**STATE, "key": jax.random.key(3, impl="rbg")}, {}),
        ({**STATE, "n": jax.random.key(3)}, {}),
        (STATE, {"config_hash": "other"}),
        (STATE, {"block": 7}),
    ],
)
def test_a_state_of_another_program_is_refused(tmp_path, template, expected):
    sweep.save_state(tmp_path / "0.npz", STATE, {"config_hash": "abc"})
    with pytest.raises(sweep.StoreDamaged, match=r"0\.npz"):
        sweep.load_state(tmp_path / "0.npz", template, expected)


def test_no_flipped_bit_gives_another_value(tmp_path):
    file = tmp_path / "0.npz"
    sweep.save_state(file, STATE, {"config_hash": "abc", "segments_done": 2})
    original, errors = file.read_bytes(), 0
    for position in range(0, len(original), 2):
        content = bytearray(original)
        content[position] ^= 1 << (position % 8)
        file.write_bytes(content)
        try:
            back, meta = sweep.load_state(file, STATE, {"config_hash": "abc"})
        except sweep.StoreDamaged:
            errors += 1
            continue
        assert meta == {"config_hash": "abc", "segments_done": 2}
        assert all(raw(back[name]).tobytes() == raw(STATE[name]).tobytes() for name in STATE)
    assert errors > len(original) // 4


def test_a_pickle_in_the_archive_is_refused(tmp_path):
    file = tmp_path / "0.npz"
    np.savez(file, meta=np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(sweep.StoreDamaged, match="allow_pickle=False"):
        sweep.load_state(file, STATE, {})


def test_the_last_two_states_are_kept(tmp_path):
    file = tmp_path / "0.npz"
    for n in range(3):
        sweep.save_state(file, STATE, {"n": n})
    assert sweep.load_state(file, STATE, {"n": 2})[1]["n"] == 2
    assert sweep.load_state(previous(file), STATE, {"n": 1})[1]["n"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npz", "0.prev.npz"]
