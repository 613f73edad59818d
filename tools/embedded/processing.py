"""The saved processor: image processor, word-level tokenizer and chat template, as a LLaVA-1.5 checkpoint has them."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from divprune.embedded.scenes import IMAGE_SIZE
from divprune.embedded.vocabulary import IMAGE_TOKEN, VIDEO_TOKEN, VIDEO_WORDS, WORDS
from tools.embedded.model import PATCH_SIZE, PIXEL_MEAN, PIXEL_STD

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

VIDEO_CHAT_TEMPLATE = CHAT_TEMPLATE.replace(
    "{% for part in message['content'] if part['type'] == 'text' %}",
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}",
)


def build_tokenizer(vocabulary: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Lower-cased words and single punctuation marks; what is not in the vocabulary becomes <unk>."""
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", WORDS.index("<s>"))]
    )
    # Only for its clean-up: no space before punctuation.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    placeholders = {"image_token": IMAGE_TOKEN, "video_token": VIDEO_TOKEN}
    placeholders = {name: token for name, token in placeholders.items() if token in vocabulary}
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in placeholders.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=placeholders,
        padding_side="left",
        model_max_length=1024,
    )


_PIXELS = {
    "size": {"shortest_edge": IMAGE_SIZE},
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "image_mean": list(PIXEL_MEAN),
    "image_std": list(PIXEL_STD),
}


def build_processor() -> LlavaProcessor:
    """Image and text to model inputs; every `<image>` becomes as many placeholders as there are patches."""
    image_processor = CLIPImageProcessor(**_PIXELS)
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )


def build_video_processor() -> LlavaNextVideoProcessor:
    """Images, videos and text to model inputs; every `<video>` becomes a placeholder for each 2 x 2 patches."""
    return LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**_PIXELS),
        image_processor=LlavaNextImageProcessor(image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]], **_PIXELS),
        tokenizer=build_tokenizer(VIDEO_WORDS),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=VIDEO_CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
