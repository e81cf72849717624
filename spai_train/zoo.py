"""The zoo: checkpoints that the authors of detectors have published, a row each, and what they say of them.

These are data and need no torch. What is not known is left out. The Hugging Face hub was not at hand: the commits,
sizes and sha256 of its files are those that several public projects pin, which agree, and the sizes of Community
Forensics are those of its network (`tests/train/test_zoo.py`). Figures of RINE are means over what its repository keeps
of its tests.
"""

from dataclasses import replace

from spai_runtime.errors import UserError
from spai_runtime.text import meant
from spai_train.published import CLIP_COMMONPOOL, CLIP_OPENAI, SIGLIP_WEBLI, Entry, PublishedFile, Reported


def find(name: str) -> Entry:
    """:raises UserError: nothing in the zoo has that name"""
    if name in ZOO:
        return ZOO[name]
    raise UserError(f"the zoo has no {name}{meant(name, ZOO)}: `spai-train zoo` lists what there is")


_GRIP = "https://github.com/grip-unina/ClipBased-SyntheticImageDetection"
_GRIP_COMMIT = "c76ef7f5e158c5aba9e55b8b94ab0079720d281e"  # whose Git LFS pointers have size and sha256
_RINE = "https://github.com/mever-team/rine"
_RINE_COMMIT = "9b7fd5857cc205d0412be6aeee0d7611b95bd620"
_COMMUNITY = PublishedFile(
    name="model.safetensors",
    source="https://huggingface.co/OwensLab/commfor-model-384",
    licence="MIT",
    size=87_262_324,
    sha256="b89f36275f3bf5e2b040eee36597a8f19db051bff9a473a9cf7b2466284fb387",
    repo="OwensLab/commfor-model-384",
    revision="6076002bf0d9dd37537f965ee2f06f826c333b61",
)

_SPAI = Entry(
    name="spai",
    detector="spai",
    file=PublishedFile(
        name="spai.pth",
        source="https://drive.google.com/file/d/1vvXmZqs6TVJdj8iF1oJ4L_fcgdQrp_YI/view",
        licence="Apache-2.0, says upstream; the masked-frequency pre-training that they start from: non-commercial",
        size=934_865_338,
        sha256="24159f27d7c8c2cd0cb6c4019189eb89ad0874a0d9d15f8dc9afd39ca9648a55",
    ),
    code_licence="Apache-2.0",
    views="all 224×224 tiles, or five crops of an image with fewer than 4",
    reported=(
        Reported(
            "AUC 5.5 points above the best method before it, mean over 13 generators",
            "the abstract of arXiv:2411.19417",
        ),
    ),
    note="its authors release these weights under Apache-2.0 without a further condition, so nothing has to be "
    "accepted; the MFM backbone that their training starts from is under the S-Lab License 1.0, for non-commercial use",
)


def _rine(classes: str, figures: str, results: str, size: int | None = None, sha256: str | None = None) -> Entry:
    """:param results: the results of upstream's best configuration, below its folder `results`"""
    name = f"model_{classes}_trainable.pth"
    source = f"{_RINE}/raw/{_RINE_COMMIT}/ckpt/{name}"
    return Entry(
        name=f"rine-{classes}",
        detector="rine",
        file=PublishedFile(name, source, "Apache-2.0", size, sha256),
        code_licence="Apache-2.0",
        views="224×224 from the middle, without a resize",
        reported=(Reported(figures, f"results/{results}.pickle of {_RINE}"),),
        tower=CLIP_OPENAI,
    )


def _clipdet(name: str, size: int, sha256: str) -> Entry:
    """:param name: the name of upstream's folder"""
    return Entry(
        name=name.replace("clipdet_", "clipdet-").replace("_", "-"),
        detector="clipdet",
        file=PublishedFile(
            "weights.pth", f"{_GRIP}/raw/{_GRIP_COMMIT}/weights/{name}/weights.pth", "Apache-2.0", size, sha256
        ),
        code_licence="Apache-2.0",
        views="224×224 from the middle, after the shorter side was resized to 224 (bicubic)",
        reported=(
            Reported(
                "AUC 6 points above the best method before it on generators that it was not trained on, 13 on impaired "
                "images; of which of the two checkpoints is not said",
                "the abstract of arXiv:2312.00195",
            ),
        ),
        tower=CLIP_COMMONPOOL,
    )


def _cospy(name: str, tower: PublishedFile, views: str, licence: str = "not said") -> Entry:
    """:param name: the name of the archive and of the folder in it"""
    archive = PublishedFile(f"{name}.zip", "https://huggingface.co/ruojiruoli/Co-Spy-Pretrained-Weights", licence)
    return Entry(
        name=f"cospy-{name.replace('_', '-')}",
        detector="cospy",
        file=archive,
        code_licence="MIT",
        views=views,
        tower=tower,
        note="its three files are a fused detector; none that was trained end to end is published",
        unpacked=name,
    )


_TWENTY = "mean over 20 test sets"

_ENTRIES = (
    _SPAI,
    _rine("1class", f"accuracy 90.3%, AP 98.6%, {_TWENTY}", "grid/ViT-L-14_1_0.1_4_1024_128_0.001_1"),
    _rine(
        "2class",
        f"accuracy 87.7%, AP 98.7%, {_TWENTY}",
        "grid/ViT-L-14_2_0.2_4_128_128_0.001_1",
        1_139_686,
        "680d301b6d191da85b9dabcebf42cd3df20c5c669fa8320c498f835d02bf5ccb",
    ),
    _rine("4class", f"accuracy 91.5%, AP 98.8%, {_TWENTY}", "grid/ViT-L-14_4_0.2_2_1024_128_0.001_1", 25_298_182),
    _rine(
        "ldm",
        "accuracy 87.5%, AP 90.5%, mean over the 9 generators of Synthbuster, in ten crops",
        "diffusion/ViT-L-14_0.4_4_1024_128_0.001_5",
    ),
    _clipdet("clipdet_latent10k", 5_227, "04b022c6990709acb132337d7e432fc57090cec9db3869577111b031d40c19f9"),
    _clipdet("clipdet_latent10k_plus", 5_155, "1c9c9f48a47d975bde67e9924983aa4e4ccda96a15e7e983b6305f0c56d9ee18"),
    Entry(
        name="corvi2023",
        detector="corvi2023",
        file=PublishedFile(
            "weights.pth",
            f"{_GRIP}/raw/{_GRIP_COMMIT}/weights/Corvi2023/weights.pth",
            "Apache-2.0",
            282_549_121,
            "0168451e84a2a35d0b141ad4f2e361a74efdd06eb8d11434087f8a0bb6e3abad",
        ),
        code_licence="Apache-2.0",
        views="the whole image, without a resize",
    ),
    Entry(
        name="community-forensics",
        detector="community-forensics",
        file=_COMMUNITY,
        code_licence="MIT",
        views="384×384 from the middle, after the shorter side was resized to 440 (bilinear)",
        reported=(
            Reported(
                "balanced accuracy at a threshold of 0.65 on 36,384 images: 75.8%; as JPEGs of quality 60 and at most "
                "768 pixels 65.9%, of quality 40 and at most 512 pixels 56.5%",
                "README of https://github.com/Phineas1500/sieve-ai-image-detector, whose fine-tune it compares with it",
            ),
        ),
    ),
    Entry(
        name="community-forensics-224",
        detector="community-forensics",
        file=replace(
            _COMMUNITY,
            source="https://huggingface.co/OwensLab/commfor-model-224",
            size=86_678_644,
            sha256="a6cc439d5a6d2dfadd60c77d27a2838ad55b34e601ecd30f46ad97266d6ac4e0",
            repo="OwensLab/commfor-model-224",
            revision="26afc31e6b40c312c3fd42c05a758be62446215b",
        ),
        code_licence="MIT",
        views="224×224 from the middle, after the shorter side was resized to 256 (bilinear)",
    ),
    Entry(
        name="dda",
        detector="dda",
        file=PublishedFile(
            name="DDA_ckpt.pth",
            source="https://huggingface.co/Junwei-Xi/Dual-Data-Alignment",
            licence="Apache-2.0",
            size=1_255_621_296,
            sha256="b27a31d39374803ddeff02bfabb2be76e190b04300490cddfafb24f683f37e3e",
            repo="Junwei-Xi/Dual-Data-Alignment",
            revision="4390d9023899196b437480bb6a441915ef5d816c",
        ),
        code_licence="Apache-2.0",
        views="336×336 from the middle, without a resize",
        reported=(
            Reported(
                "accuracy 90.7%, mean over 11 benchmarks; 81.4% on the worst of them",
                "README of https://github.com/roy-ch/Dual-Data-Alignment",
            ),
        ),
    ),
    _cospy(
        "sd-v1_4",
        SIGLIP_WEBLI,
        "384×384 from the middle, after the shorter side was resized to 384 (bilinear)",
        "not said; CreativeML OpenRAIL-M the VAE of Stable Diffusion v1.4 that it holds",
    ),
    _cospy("progan", CLIP_OPENAI, "224×224 from the middle, after the shorter side was resized to 256 (bilinear)"),
)

ZOO: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
