"""Checking and planning work where torch is not installed, and importing archspec does not import it."""

import subprocess
import sys
import textwrap

SPEC = """
model m {
  layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
  layers 1-2 attend, kv heads 2
  layers 3-4 cross-attend to cache@2
}
"""
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(code, path, blocked=("torch", "safetensors", "numpy")):
    script = BLOCK.format(blocked=blocked) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_check_and_plan_without_torch(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(SPEC)
    out = run(
        """
        import archspec

        path = sys.argv[1]
        assert archspec.check(path) == []
        plan = archspec.plan(archspec.parse(path))
        print(plan.num_parameters(), plan.cache_bytes(batch=1, context=4096, dtype="bfloat16"), plan.cache_formula())
        """,
        path,
    )
    numbers = out.split()
    assert int(numbers[1]) == 2 * 2 * 2 * 2 * 16 * 4096  # 2 slots of keys and values, 2 x 16, 2 bytes, 4096 tokens


def test_errors_without_torch(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(SPEC.replace("cache@2", "cache@40"))
    out = run("import archspec; print([d.code for d in archspec.check(sys.argv[1])])", path)
    assert out.strip() == "['E0201']"


def test_import_and_check_load_no_heavy_module(tmp_path):
    """Not even where they are installed; networkx only for drawings of the graph."""
    path = tmp_path / "m.arch"
    path.write_text(SPEC)
    heavy = ("torch", "numpy", "safetensors", "transformers", "networkx", "sympy", "matplotlib", "rich", "typer")
    code = f"import archspec; archspec.check(sys.argv[1]); print([name for name in {heavy!r} if name in sys.modules])"
    assert run(code, path, blocked=()).strip() == "[]"
