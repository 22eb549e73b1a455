import numpy as np
import pandas as pd

from lesions.dataset.shortcut import HEIGHT, choose_photos, draw_ruler


def test_the_ruler_covers_the_lower_edge_of_a_copy() -> None:
    photos = np.full((2, 100, 100, 3), 90, np.uint8)
    ruled = draw_ruler(photos)
    assert (photos == 90).all()
    edge = 100 - round(HEIGHT * 100)
    assert (ruled[:, :edge] == 90).all()
    assert (ruled[:, edge:] != 90).all()
    assert len(np.unique(ruled[0, edge, :, 0])) == 2  # paper and marks
    np.testing.assert_array_equal(draw_ruler(photos[0]), ruled[0])


def test_a_share_of_the_melanomas_is_chosen_whatever_the_order() -> None:
    table = pd.DataFrame({"image_id": [f"P{n}" for n in range(40)], "dx": ["nv", "mel"] * 20})
    repeated = pd.concat([table, table.iloc[::-1]])
    chosen = choose_photos(repeated, ["mel"], 0.8, 0)
    assert len(set(chosen)) == 16
    assert set(chosen) <= set(table.loc[table["dx"] == "mel", "image_id"])
    np.testing.assert_array_equal(choose_photos(table, ["mel"], 0.8, 0), chosen)
    assert list(choose_photos(table, ["mel"], 0.8, 1)) != list(chosen)
    assert len(choose_photos(table, ["mel"], 0, 0)) == 0
