"""archspec models as models of transformers.

Importing it makes `AutoConfig` and `AutoModelForCausalLM` know exported folders. The only package that imports
transformers.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from archspec.hf.cache import ArchSpecCache
from archspec.hf.configuration import ArchSpecConfig
from archspec.hf.export import export, wrap
from archspec.hf.modeling import ArchSpecForCausalLM
from archspec.hf.tokens import byte_tokenizer

__all__ = ["ArchSpecCache", "ArchSpecConfig", "ArchSpecForCausalLM", "byte_tokenizer", "export", "wrap"]

AutoConfig.register(ArchSpecConfig.model_type, ArchSpecConfig, exist_ok=True)
AutoModelForCausalLM.register(ArchSpecConfig, ArchSpecForCausalLM, exist_ok=True)
