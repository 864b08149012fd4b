"""`pytest --arch`: specs are collected, and their `# expect:` comments are judged."""

import pytest

pytest_plugins = ["pytester"]

GOOD = """# expect: 8,640 parameters
# expect: 512 bytes of cache at 4
# expect: 8_192 bytes of cache at 2 x 1K in float32
# expect: B*e*(16*min(T, 16) + 16*T) bytes of cache
# expect: prefill exit after cache@2
model m {
  layers 3, width 16, vocab 10, ffn swiglu(32), heads 2 x 8, kv heads 1, rope 10000
  layers 1 attend, window 16
  layers 2 attend
  layers 3 cross-attend to cache@2
}
"""


def spec(pytester: pytest.Pytester, text: str, name: str = "m") -> None:
    pytester.makefile(".arch", **{name: text})


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Pytest with the plugin, whether or not archspec is installed, and without those of the project's own tests."""
    return pytester.runpytest("-p", "archspec.testing.plugin", "-p", "no:asyncio", *options)


@pytest.fixture
def good() -> str:
    """GOOD with the sizes that the plan has."""
    import archspec

    plan = archspec.plan(archspec.parse_spec_text(GOOD))
    text = GOOD.replace("8,640", f"{plan.num_parameters():,}")
    text = text.replace("B*e*(16*min(T, 16) + 16*T)", plan.cache_formula())
    return text.replace("8_192", str(plan.cache_bytes(2, 1024, "float32"))).replace("512", str(plan.cache_bytes(1, 4)))


def test_nothing_is_collected_unless_asked_for(pytester, good):
    spec(pytester, good)
    assert run(pytester).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_expectations_that_hold(pytester, good):
    spec(pytester, good)
    run(pytester, "--arch").assert_outcomes(passed=6)


def test_the_ini_option(pytester, good):
    spec(pytester, good)
    pytester.makeini("[pytest]\narch = true\n")
    run(pytester).assert_outcomes(passed=6)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (" parameters", "1 parameters", "*parameters: expected *1, but it is *"),
        (" bytes of cache at 4", "0 bytes of cache at 4", "*bytes of cache: expected *0, but it is *"),
        ("B*e", "2*B*e", "*expected 2?B?e*but it is B?e*"),
        ("exit after cache@2", "exit after cache@3", "*expected cache@3, but it is cache@2*"),
        ("prefill exit after cache@2", "no prefill exit", "*expected None, but it is cache@2*"),
        ("prefill exit after cache@2", "a miracle", "*line 5: `a miracle` is not understood*"),
        ("at 4", "at 4 in float7", "*unknown dtype `float7`; known: float64, *"),
        ("prefill exit after cache@2", "error E0204", "*no such finding; found: nothing*"),
    ],
)
def test_expectations_that_do_not_hold(pytester, good, old, new, said):
    spec(pytester, good.replace(old, new, 1))
    result = run(pytester, "--arch")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_findings_fail_unless_they_are_expected(pytester, good):
    broken = good.replace("cache@2\n}", "cache@4\n}").split("model", 1)[1]
    spec(pytester, f"model{broken}", "unexpected")
    spec(pytester, f"# expect: error E0201 at line 6\nmodel{broken}", "expected")
    result = run(pytester, "--arch")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*findings: expected 0, but there are 1*", "error?E0201?: *"])
