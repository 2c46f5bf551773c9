"""What weights can be read, for messages and help."""

UNDERSTOOD = (
    "an export of blip2_train or a run folder with one, a Hugging Face folder or id of Blip2ForConditionalGeneration "
    "or Blip2ForImageTextRetrieval, a LAVIS .pth file, a Paddle .pdparams file"
)
