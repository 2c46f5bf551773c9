"""The images of the emoji scenes, chosen by hand: countable things of one or two words that do not look alike.

Each line is `group: code name; code name; …`, a code being the file stem of the image in the emoji packages. A name
must occur among the words by which the packages call the image; `sheets.py` checks that.
"""

IMAGES = """
animal: 1f412 monkey; 1f415 dog; 1f98a fox; 1f408 cat; 1f981 lion; 1f405 tiger; 1f40e horse; 1f993 zebra
animal: 1f404 cow; 1f416 pig; 1f411 sheep; 1f42a camel; 1f992 giraffe; 1f418 elephant; 1f407 rabbit; 1f987 bat
animal: 1f43b bear; 1f428 koala; 1f43c panda; 1f9a8 skunk; 1f998 kangaroo; 1f984 unicorn; 1f438 frog
animal: 1f40a crocodile; 1f422 turtle; 1f40d snake; 1f409 dragon; 1f995 dinosaur
bird: 1f413 rooster; 1f427 penguin; 1f985 eagle; 1f986 duck; 1f989 owl; 1f9a9 flamingo; 1f99a peacock; 1f99c parrot
sea animal: 1f433 whale; 1f42c dolphin; 1f41f fish; 1f988 shark; 1f419 octopus; 1f980 crab
insect: 1f40c snail; 1f98b butterfly; 1f41c ant; 1f41d bee; 1f41e ladybug; 1f577-fe0f spider; 1f982 scorpion
plant: 1f339 rose; 1f33b sunflower; 1f337 tulip; 1f335 cactus; 1f334 palm tree; 1f340 clover; 1f341 maple leaf
plant: 1f344 mushroom; 1fab4 potted plant
fruit: 1f349 watermelon; 1f34a tangerine; 1f34b lemon; 1f34c banana; 1f34d pineapple; 1f34e apple; 1f350 pear
fruit: 1f352 cherry; 1f353 strawberry; 1f951 avocado
vegetable: 1f345 tomato; 1f346 eggplant; 1f955 carrot; 1f336-fe0f hot pepper
food: 1f950 croissant; 1f968 pretzel; 1f95e pancake; 1f9c7 waffle; 1f354 hamburger; 1f355 pizza; 1f32d hotdog
food: 1f32e taco; 1f95a egg; 1f373 fried egg; 1f369 doughnut; 1f36a cookie; 1f382 birthday cake; 1f9c1 cupcake
food: 1f36d lollipop
dish: 1f37c baby bottle; 1fad6 teapot; 1f377 wine glass; 1f37a beer mug; 1f3fa amphora
building: 1f30b volcano; 1f3e0 house; 1f3f0 castle; 26ea church; 26fa tent; 1f3a1 ferris wheel
vehicle: 1f682 locomotive; 1f68c bus; 1f691 ambulance; 1f692 fire engine; 1f695 taxi; 1f697 car; 1f69a truck
vehicle: 1f69c tractor; 1f3cd-fe0f motorcycle; 1f6b2 bicycle; 1f6f4 scooter; 1f6f9 skateboard; 26f5 sailboat
vehicle: 1f6f6 canoe; 1f6a2 ship; 2708-fe0f airplane; 1f681 helicopter; 1f680 rocket; 1f6f8 flying saucer
vehicle: 1fa82 parachute
sign: 1f6a6 traffic light; 1f6d1 stop sign; 2693 anchor
clock: 231b hourglass; 231a watch; 23f0 alarm clock
sky: 1f319 crescent moon; 2600-fe0f sun; 2b50 star; 2601-fe0f cloud; 1f308 rainbow; 2744-fe0f snowflake; 1f525 fire
sky: 1fa90 ringed planet
toy: 2603-fe0f snowman; 1f383 pumpkin; 1f384 christmas tree; 1f388 balloon; 1f381 gift; 1f3c6 trophy; 1f3c5 medal
toy: 1fa81 kite; 1f52e crystal ball; 1f579-fe0f joystick; 1f3b2 game die; 1f9f8 teddy bear
toy: 1fa85 pinata
sport: 26bd soccer ball; 1f3c0 basketball; 1f3c8 football; 1f94a boxing glove; 1f3af bullseye; 26f8-fe0f ice skate
clothing: 1f455 shirt; 1f9e3 scarf; 1f457 dress; 1f460 high heel; 1f462 boot; 1f451 crown; 1f3a9 top hat; 1f48d ring
clothing: 2602-fe0f umbrella
bag: 1f45c handbag; 1f392 backpack; 1f4b0 money bag; 1f4bc briefcase; 1f9fa basket; 1faa3 bucket
bag: 1f6d2 shopping cart
instrument: 1f514 bell; 1f3b7 saxophone; 1f3b8 guitar; 1f3ba trumpet; 1f3bb violin; 1f941 drum; 1fa97 accordion
device: 1f3a4 microphone; 1f4f1 mobile phone; 260e-fe0f telephone; 1f50b battery; 1f4bb laptop; 2328-fe0f keyboard
device: 1f4be floppy disk; 1f9ee abacus; 1f4fa television; 1f4f7 camera; 1f526 flashlight; 1f4a1 light bulb
device: 1f52c microscope
thing: 1f48e gem; 1f4e2 loudspeaker; 1f50d magnifying glass; 1f56f-fe0f candle; 1f4d5 book; 1f4dc scroll
thing: 2709-fe0f envelope; 1f4e6 package; 1f4c5 calendar; 1f4cc pushpin; 1f512 lock; 1f511 key; 1f4a3 bomb
thing: 1f6e1-fe0f shield; 1f9ef fire extinguisher; 1f48a pill; 1f3a8 palette
tool: 270f-fe0f pencil; 1f58c-fe0f paintbrush; 1f4d0 triangular ruler; 1f528 hammer; 1fa93 axe
tool: 1f527 wrench; 2699-fe0f gear; 1f9f2 magnet; 1fa9c ladder; 1f9f9 broom; 1faa5 toothbrush
furniture: 1f6aa door; 1fa91 chair; 1f6cf-fe0f bed; 1f6bd toilet; 1f6c1 bathtub; 1fa9e mirror
"""

PLURALS = {
    "volcano": "volcanoes",
    "snowman": "snowmen",
    "sheep": "sheep",
    "fish": "fish",
    "maple leaf": "maple leaves",
    "scarf": "scarves",
    "game die": "game dice",
    "tomato": "tomatoes",
}
"""Plurals that the rule of `sheets.py` (`y` to `ies`, `es` after a hiss, else `s`) would get wrong."""

SYNONYMS = {
    "rabbit": "bunny",
    "crocodile": "alligator",
    "ladybug": "beetle",
    "tangerine": "orange",
    "hot pepper": "chili",
    "hamburger": "burger",
    "doughnut": "donut",
    "locomotive": "train",
    "fire engine": "fire truck",
    "taxi": "cab",
    "motorcycle": "motorbike",
    "bicycle": "bike",
    "sailboat": "boat",
    "canoe": "kayak",
    "ship": "boat",
    "airplane": "plane",
    "flying saucer": "ufo",
    "fire": "flame",
    "ringed planet": "saturn",
    "gift": "present",
    "bullseye": "dartboard",
    "handbag": "purse",
    "mobile phone": "phone",
    "telephone": "phone",
    "laptop": "computer",
    "television": "tv",
    "gem": "diamond",
    "loudspeaker": "megaphone",
    "envelope": "letter",
    "package": "box",
    "lock": "padlock",
    "pill": "medicine",
    "triangular ruler": "ruler",
    "bathtub": "bath",
    "christmas tree": "tree",
    "game die": "dice",
    "shopping cart": "trolley",
    "teddy bear": "toy",
    "potted plant": "plant",
}
"""Another word that some annotators of the questions use."""
