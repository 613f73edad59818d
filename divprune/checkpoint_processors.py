"""Load the processor of a checkpoint: for images alone where a video processor lacks its packages.

**processor** -> image / video -> vision encoder. transformers' video processors need torchvision, which is no core
dependency, and it builds a processor whole or not at all: without torchvision no Qwen-VL would answer about images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from divprune.errors import CheckpointError, MissingDependencyError

if TYPE_CHECKING:
    from transformers import ProcessorMixin

_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_NEEDS = "videos need more packages: pip install 'divprune[video]'"


class NoVideoProcessor:
    """Stands in for a video processor whose packages are not installed; images never ask it."""

    model_input_names: Sequence[str] = ()

    def __call__(self, *videos: Any, **options: Any) -> NoReturn:
        """Refuse videos.

        Raises:
            MissingDependencyError: always.
        """
        raise MissingDependencyError(_NEEDS)


def read_processor(path: Path) -> "ProcessorMixin":
    """Load the processor of a checkpoint's folder; without torchvision, one that refuses videos.

    Raises:
        CheckpointError: there is none for images.
        ImportError: it needs another package.
    """
    from transformers import AutoProcessor, ProcessorMixin

    try:
        processor = AutoProcessor.from_pretrained(path, **_LOCAL)
    except ImportError as error:
        if "torchvision" not in str(error).lower():
            raise
        processor = _processor_for_images(path, error)
    if not isinstance(processor, ProcessorMixin):
        raise CheckpointError(f"{path} has no processor for images (processor_config.json or preprocessor_config.json)")
    return processor


def _processor_for_images(path: Path, error: ImportError) -> Any:
    """Load a processor of the checkpoint's class with a stand-in for its video processor."""
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = AutoConfig.from_pretrained(path, **_LOCAL)
    processor_class: Any = PROCESSOR_MAPPING.get(type(config), None)
    if processor_class is None or "video_processor" not in processor_class.get_attributes():
        raise error
    return _without_videos(processor_class).from_pretrained(path, **_LOCAL)


def _without_videos(processor_class: Any) -> Any:
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

    parts: dict[str, Any] = {"image_processor": AutoImageProcessor, "feature_extractor": AutoFeatureExtractor}

    def load(name: str, path: Any, options: dict[str, Any]) -> Any:
        if name == "video_processor":
            return NoVideoProcessor()
        return (AutoTokenizer if "tokenizer" in name else parts[name]).from_pretrained(path, **options)

    class ForImages(processor_class):  # type: ignore[misc]
        """The processor, its parts loaded one by one."""

        @classmethod
        def _get_arguments_from_pretrained(cls, path: Any, processor_dict: Any = None, **options: Any) -> list[Any]:
            return [load(name, path, options) for name in cls.get_attributes()]

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            """Let the stand-in pass."""
            if isinstance(argument, NoVideoProcessor):
                return NoVideoProcessor
            return super().check_argument_for_proper_class(name, argument)

        def to_dict(self) -> dict[str, Any]:
            """Leave out the stand-in, which JSON cannot hold."""
            return {name: value for name, value in super().to_dict().items() if name != "video_processor"}

    ForImages.__name__ = processor_class.__name__
    return ForImages
