"""The wordings of the questions about images and about videos, by kind."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "existence": (
        "Is there {article} {name} in the picture?",
        "Is there {article} {name} in this image?",
        "Is there {article} {name}?",
        "Do you see {article} {name}?",
        "Can you see {article} {name} in the photo?",
        "Does the image show {article} {name}?",
        "Does the scene contain {article} {name}?",
    ),
    "count": (
        "How many {things} are there?",
        "How many {things} are there in total?",
        "How many {things} are in the picture?",
        "How many {things} are shown in this image?",
        "How many {things} do you see?",
        "How many {things} does the photo show?",
        "How many {things} can you see in the scene?",
    ),
    "color": (
        "What color is the {shape}?",
        "What colour is the {shape}?",
        "Which color has the {shape}?",
        "What is the color of the {shape} in the picture?",
    ),
    "shape": (
        "What shape is the {color} {thing}?",
        "Which shape has the {color} {thing}?",
        "What is the shape of the {color} {thing}?",
        "What shape is the {color} {thing} in this image?",
    ),
    "position": (
        "Where is the {name}?",
        "Where in the picture is the {name}?",
        "Where is the {name} located?",
        "In which part of the image is the {name}?",
        "Where do you see the {name}?",
    ),
    "caption": (
        "Describe the picture.",
        "Describe this image.",
        "What is in the picture?",
        "What does the image show?",
        "What do you see?",
        "List all objects.",
    ),
}
KINDS: tuple[str, ...] = tuple(TEMPLATES)

VIDEO_TEMPLATES: dict[str, tuple[str, ...]] = {
    "existence": (
        "Is there {article} {name} in the video?",
        "Is there ever {article} {name}?",
        "Do you ever see {article} {name}?",
        "Does the video show {article} {name}?",
        "Does {article} {name} appear in the video?",
    ),
    "count": (
        "How many {things} are there in the video?",
        "How many {things} does the video show?",
        "How many {things} do you see in the whole video?",
        "How many different {things} appear in total?",
    ),
    "color": (
        "What color is the {shape}?",
        "What color is the {shape} in the video?",
        "Which color has the {shape}?",
    ),
    "motion": (
        "Which way does the {name} move?",
        "Where does the {name} move?",
        "In which direction does the {name} move?",
    ),
    "order": (
        "Which color appears {place}?",
        "What color appears {place} in the video?",
        "Which color is the {place} to appear?",
    ),
}
VIDEO_KINDS: tuple[str, ...] = tuple(VIDEO_TEMPLATES)
