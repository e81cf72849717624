"""Files that others publish: where they are, and how to check that a file is the right one. None of it needs torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights.

    :param name: the file's name, as its source calls it
    :param source: the address that a person opens to get it
    :param licence: the licence of the weights, in the words of whoever published them
    :param size: the size in bytes; None where it is not known
    :param sha256: the sha256 of the content; None where it is not known
    :param repo: `owner/name` on the Hugging Face hub, or "" where it does not lie there
    :param revision: a commit of the repo, or a branch where no commit is known
    """

    name: str
    source: str
    licence: str
    size: int | None = None
    sha256: str | None = None
    repo: str = ""
    revision: str = "main"

    @property
    def described(self) -> str:
        """The file in words, for a sentence that tells a user what to get."""
        size = "" if self.size is None else f" ({self.size:,} bytes)"
        return f"{self.name}{size} from {self.source}"


@dataclass(frozen=True)
class Reported:
    """Figures that somebody published of a checkpoint; none were measured here.

    :param source: where the figures were read
    """

    figures: str
    source: str


@dataclass(frozen=True)
class Entry:
    """A published checkpoint.

    :param name: what `spai-run --detector` and `spai-train zoo` call it
    :param detector: a row of DETECTORS
    :param tower: weights of the backbone, where the checkpoint holds only what its authors trained
    :param unpacked: the folder that an archive unpacks to, or ""
    :param views: the views of an image that it looks at, in words
    :param non_commercial: whether the terms of its weights must be accepted, because they forbid commercial use
    :param note: what else must be known before it is used, or ""
    """

    name: str
    detector: str
    file: PublishedFile
    code_licence: str
    views: str
    reported: tuple[Reported, ...] = ()
    tower: PublishedFile | None = None
    non_commercial: bool = False
    note: str = ""
    unpacked: str = ""

    @property
    def on_hub(self) -> bool:
        """Whether `spai-run --detector` can get the checkpoint by itself."""
        return bool(self.file.repo)

    @property
    def export_line(self) -> str:
        """The command that makes an exported directory of the file, once it is here."""
        tower = f" --tower {self.tower.name}" if self.tower else ""
        checkpoint = self.unpacked or self.file.name
        return f"spai-export --detector {self.detector} --ckpt {checkpoint}{tower} --output {self.name}"

    @property
    def instructions(self) -> str:
        """What to do with the file, as a part of a sentence."""
        tower = f", and {self.tower.described}" if self.tower else ""
        file = f"{self.file.described}, unpack it" if self.unpacked else self.file.described
        return f"get {file}{tower}, run `{self.export_line}`, and give spai-run --engine {self.name}"


# What the code of OpenAI downloads for `ViT-L/14` (openai/CLIP, clip/clip.py); the address holds the sha256.
CLIP_OPENAI = PublishedFile(
    name="ViT-L-14.pt",
    source="https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f2e0e0eca1737a03836/ViT-L-14.pt",
    licence="MIT",
    sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f2e0e0eca1737a03836",
)

# What OpenCLIP downloads for `ViT-SO400M-14-SigLIP-384` and `webli` (open_clip 3.3.0, pretrained.py).
SIGLIP_WEBLI = PublishedFile(
    name="open_clip_model.safetensors",
    source="https://huggingface.co/timm/ViT-SO400M-14-SigLIP-384",
    licence="Apache-2.0",
    repo="timm/ViT-SO400M-14-SigLIP-384",
)

# The VAE that CO-SPY's training downloads (Megum1/CO-SPY, detectors/sd-v1_4/artifact.py); in diffusers' names.
VAE_SD14 = PublishedFile(
    name="diffusion_pytorch_model.safetensors",
    source="https://huggingface.co/CompVis/stable-diffusion-v1-4/tree/main/vae",
    licence="CreativeML OpenRAIL-M",
    repo="CompVis/stable-diffusion-v1-4",
)

# What ClipDet's code downloads for `clipL14commonpool` (grip-unina/ClipBased-SyntheticImageDetection, openclipnet.py).
CLIP_COMMONPOOL = PublishedFile(
    name="open_clip_pytorch_model.bin",
    source="https://huggingface.co/laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K",
    licence="MIT",
    repo="laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K",
)
