"""The catalogue: addresses, sizes, checksums and counts of the published datasets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file of an archive."""

    name: str  # in the cache, also for a file that is put there by hand
    path: str  # appended to the archive's address
    md5: str
    size: int | None = None  # bytes, where published


@dataclass(frozen=True)
class Archive:
    """A published dataset at one address."""

    title: str
    address: str
    files: tuple[RemoteFile, ...]
    photos: int
    lesions: int | None = None
    counts: dict[str, int] | None = None  # photos of each diagnosis
    licence: str = "CC BY-NC 4.0: not for commercial use"
    citation: str = (
        "Tschandl, Rosendahl, Kittler 2018, doi:10.1038/sdata.2018.161; doi:10.7910/DVN/DBW86T"
    )


# Harvard Dataverse. Without ?format=original it sends a re-quoted table with another MD5.
HAM10000 = Archive(
    title="HAM10000, Harvard Dataverse",
    address="https://dataverse.harvard.edu",
    files=(
        RemoteFile(
            "HAM10000_metadata.csv",
            "/api/access/datafile/4338392?format=original",
            "8f85fb1aa29d80a2797247e434deb79d",
            690_218,
        ),
        RemoteFile(
            "HAM10000_images_part_1.zip",
            "/api/access/datafile/3172585",
            "4639bfa73ab251610530a97c898e6e46",
            1_366_522_108,
        ),
        RemoteFile(
            "HAM10000_images_part_2.zip",
            "/api/access/datafile/3172584",
            "da43d6cc50f6613013be07e8986b384b",
            1_403_566_547,
        ),
    ),
    photos=10_015,
    lesions=7_470,
    counts={
        "akiec": 327,
        "bcc": 514,
        "bkl": 1_099,
        "df": 115,
        "mel": 1_113,
        "nv": 6_705,
        "vasc": 142,
    },
)
# Kaggle: the same photos, each twice, in folders whose names differ only in case.
KAGGLE_HANDLE = "kmader/skin-cancer-mnist-ham10000"

# The official test set of the ISIC 2018 challenge, task 3.
ISIC2018 = Archive(
    title="ISIC 2018 Task 3 test set, Harvard Dataverse",
    address=HAM10000.address,
    files=(
        RemoteFile(
            "ISIC2018_Task3_Test_GroundTruth.csv",
            "/api/access/datafile/6924466?format=original",
            "2b5663aacc9644740f27e355cf7f369a",
        ),
        RemoteFile(
            "ISIC2018_Task3_Test_Images.zip",
            "/api/access/datafile/3855824",
            "0488b6f65849e310857d9207daa55a21",
        ),
    ),
    photos=1_511,
    citation=HAM10000.citation + "; Codella et al. 2019, arXiv:1902.03368",
)
# The ground truth lists it with weight 0, but its photo does not exist.
WITHOUT_PHOTO = "ISIC_0035068"
