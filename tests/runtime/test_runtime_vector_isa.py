"""Vector instructions that were found usable once are not tried again; those that were not, are."""

import pytest
from torch._inductor import cpu_vec_isa

from archspec.runtime.vector_isa import remember_vector_instructions

KINDS = {kind for isa in cpu_vec_isa.supported_vec_isa_list for kind in type(isa).__mro__[:-1]}
if not cpu_vec_isa.x86_isa_checker():
    pytest.skip("inductor tries the vector instructions of x86 alone", allow_module_level=True)


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """What was tried, in a machine's first process; `.usable` is what comes of it."""

    def forget():
        cpu_vec_isa.valid_vec_isa_list.cache_clear()
        for member in (member for kind in KINDS for member in vars(kind).values()):
            getattr(member, "cache_clear", int)()

    class Tried(list):
        usable = True

        def in_a_new_process(self):
            forget()
            self.clear()
            remember_vector_instructions.__wrapped__()
            return cpu_vec_isa.valid_vec_isa_list()

    def check_build(self, code):
        if code == cpu_vec_isa.VecISA._avx_code:
            found.append(str(self))
        return found.usable

    found = Tried()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", check_build)
    yield found
    monkeypatch.undo()
    forget()


def test_what_is_usable_is_tried_once(tried):
    first = tried.in_a_new_process()
    all_usable = len(tried) == len(first) > 0
    assert tried.in_a_new_process() == first
    assert bool(tried) != all_usable


def test_what_is_not_usable_is_tried_again(tried):
    tried.usable = False
    assert tried.in_a_new_process() == []
    assert tried.in_a_new_process() == []
    assert tried


def test_the_setting_itself_is_left_as_it_was(tried):
    before = cpu_vec_isa.config.cpp.vec_isa_ok
    tried.in_a_new_process()
    tried.in_a_new_process()
    assert cpu_vec_isa.config.cpp.vec_isa_ok is before


def test_a_cache_that_cannot_be_written(tried, tmp_path, monkeypatch):
    (tmp_path / "archspec").write_text("in the way")
    assert tried.in_a_new_process()
