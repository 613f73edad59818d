"""From operations to hours: what a GPU is taken to do, and where that comes from.

The paper's own measurement sets the share of a GPU's peak: the prefill of LLaVA-NeXT-Video, 6.539 T
multiply-accumulates by Eq. 5 and 16.6 T operations exactly, takes 0.330 s on a V100 (its Table 2), which is 50 TFLOP/s
or 40 % of the 125 TFLOP/s of its tensor cores. The same share is taken for other GPUs, and for the memory's bandwidth
while an answer is generated one token at a time: the weights are read once for each. Overheads are guesses.
"""

from dataclasses import dataclass

PEAK_SHARE = 0.4
BYTES_PER_WEIGHT = 2
TERA, SECONDS_PER_HOUR = 1e12, 3600.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        name: how it is called.
        peak_tflops: dense half-precision operations of its tensor cores, in TFLOP/s.
        bandwidth_terabytes: of its memory, in TB/s.
    """

    name: str
    peak_tflops: float
    bandwidth_terabytes: float


V100 = Gpu("V100", 125, 0.9)
GPUS = (V100, Gpu("A100", 312, 2.0), Gpu("H100", 989, 3.35))
"""V100 SXM2, A100 SXM 80 GB and H100 SXM, as NVIDIA's data sheets say; the paper used V100s."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a GPU is taken to do.

    Attributes:
        name: whose it is.
        tflops: operations of a prefill, in TFLOP/s.
        bandwidth_terabytes: weights read while generating, in TB/s.
        image_overhead_seconds: reading and preparing a picture and all else that is not the model, for each question.
        video_overhead_seconds: the same for a clip.
    """

    name: str
    tflops: float
    bandwidth_terabytes: float
    image_overhead_seconds: float = 0.15
    video_overhead_seconds: float = 1.0

    def seconds(self, prefill_flop: float, num_decoded: int, num_weights: float, medium: str) -> float:
        """Return the time of one question.

        Args:
            prefill_flop: operations until the first token, encoder included.
            num_decoded: tokens after the first.
            num_weights: of the language model.
            medium: "image" or "video".
        """
        overhead = self.video_overhead_seconds if medium == "video" else self.image_overhead_seconds
        decoding = num_decoded * num_weights * BYTES_PER_WEIGHT / (self.bandwidth_terabytes * TERA)
        return prefill_flop / (self.tflops * TERA) + decoding + overhead


def usual_throughput(gpu: Gpu = V100) -> Throughput:
    """Return what a GPU is taken to do: `PEAK_SHARE` of its peaks."""
    return Throughput(gpu.name, PEAK_SHARE * gpu.peak_tflops, PEAK_SHARE * gpu.bandwidth_terabytes)


def throughput_of(tflops: float) -> Throughput:
    """Return the throughput of a GPU that does so many operations, with the memory of the listed GPU nearest to it.

    Args:
        tflops: that its prefill reaches, in TFLOP/s.

    Raises:
        ValueError: it is not above 0.
    """
    if not tflops > 0:
        raise ValueError(f"gpu_tflops must be above 0, got {tflops}")
    nearest = min((usual_throughput(gpu) for gpu in GPUS), key=lambda each: abs(each.tflops - tflops))
    return Throughput(f"{tflops:g} TFLOP/s", tflops, nearest.bandwidth_terabytes)
