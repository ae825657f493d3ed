# Image of the web app and of all other programs. docs/usage.md#docker has the commands.
# For NVIDIA GPUs: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t cut .
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
COPY requirements.txt requirements-extra.txt ./
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision \
  && pip install --no-cache-dir -r requirements.txt -r requirements-extra.txt
COPY . .
ENV PYTHONUNBUFFERED=1
EXPOSE 7860
ENTRYPOINT ["python"]
CMD ["scripts/app.py", "--host", "0.0.0.0", "--embed"]
